"""Write the reference of docs/experiments.md from the models in `rowwise.config`.

Kinds, ranges and defaults come from the models, what a table is for from their docstrings. What a
key means is said in MEANING, which must have every key and no other.

    python docs/make_experiments.py            write the page
    python docs/make_experiments.py --check    exit 1 where it is stale
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from marked import bring_up_to_date, fill

from rowwise.config import Experiment, Study
from rowwise.network import Network

PAGE = Path(__file__).with_name("experiments.md")
SHAPE, CLASSES = (28, 28), 10  # the pictures for which the page's examples are counted

# Title, anchor, the sentence before its tables, and the models of each part, in reading order.
PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Study", "", ("Study",)),
    ("Experiment", "", ("Experiment",)),
    (
        "Readings",
        "How a picture becomes a sequence of T time steps with I inputs each.",
        ("Rows", "Columns", "Pixels", "Permuted", "Patches"),
    ),
    (
        "Layers",
        "Applied in the order of the list. A closing softmax layer over the classes is added.",
        ("BatchNorm", "Recurrent", "Dropout", "Dense", "Flatten", "Pool"),
    ),
    ("Branches", "", ("Branch",)),
    ("Optimisers", "In Keras' form, with Keras' defaults.", ("Adam", "AdamW", "RMSprop", "SGD")),
    (
        "Schedules",
        "The factor by which the optimiser's learning rate is multiplied at each step. Shares are "
        "of all steps of `epochs` epochs, whether or not early stopping ends them sooner.",
        ("Constant", "Exponential", "Cosine", "OneCycle"),
    ),
    ("Clipping", "", ("Clipping",)),
    ("Augmentation", "", ("Augmentation",)),
    ("Averaging", "", ("Averaging",)),
    ("Early stopping", "", ("EarlyStopping",)),
    ("Published", "", ("Published",)),
)
LINKS = {model: title.lower().replace(" ", "-") for title, _, models in PARTS for model in models}

# Keys whose rule a schema cannot tell.
KIND_OF_VALUE = {
    "name": "1 to 64 letters, digits, dots, dashes, underscores; begins with a letter or digit",
    "validation": '`"test"`, or a share above 0, at most 0.5',
}

MEANING = {
    "format": "the version of the file format",
    "name": "names the run folders and the lines of the report",
    "note": "for people; stands in the report",
    "title": "the report's title; without one, the name",
    "dataset": "the data set that it is run on, unless `--data` or `--dataset` name another; "
    "without one, MNIST or what can be had",
    "seeds": "runs of each experiment, with the seeds 0, 1, …",
    "experiments": "what is compared, each under a name of its own",
    "reading": "how the picture is read; belongs inside the branches once there are any",
    "branches": "readings side by side, joined before `layers`",
    "Experiment.layers": "the network; may be empty only with `branches`",
    "Branch.reading": "how this branch reads the picture",
    "Branch.layers": "this branch's layers; must end in one vector a picture",
    "optimizer": "how weights are moved",
    "schedule": "how the learning rate changes during training",
    "clipping": "a bound on gradients",
    "label_smoothing": "s: the targets are (1 - s)·onehot + s/C, in every loss that is reported",
    "target_replication": "a: the share of the loss that is taken at every step; above 0 the "
    "layers end in a sequence",
    "augmentation": "distortions of the training pictures",
    "averaging": "an average of the weights, which is then what is kept",
    "before": "lines before its own that a step sees too",
    "after": "lines after its own that a step sees too",
    "decay": "d: the share of the average that stays",
    "every": "steps after which the average moves",
    "rotation_deg": "by up to so many degrees either way",
    "shear": "by up to so much of a pixel a row, either way",
    "scale": "either axis, by up to that share, larger or smaller",
    "shift_px": "either axis, by up to so many pixels",
    "elastic_px": "the largest root mean square of a picture's displacements, in pixels",
    "elastic_spacing_px": "the distance at which displacements are independent",
    "stroke": "thicker or thinner by up to about 2 px times this",
    "outline_share": "pictures of which the strokes' edges alone remain",
    "line_share": "pictures that are crossed by a line",
    "erase_share": "pictures that lose a rectangle of up to a third of each side",
    "blur_share": "pictures that are blurred, by up to 1.2 px",
    "contrast_share": "pictures with another gamma (1/2 to 2) and fainter ink (down to 0.4)",
    "calm_share": "the last part of the training, in which distortions are halved",
    "flag_share": "ones that get a flag, half of them a base too",
    "closed_share": "fours that are closed to a triangle at the top, and made narrower",
    "outlier_share": "pictures that are made into none of the ten digits: mirrored, on the side, "
    "scrambled, two at once, noise, scribbles; training accuracy does not count them",
    "noise_share": "pictures with Gaussian noise, half of them with specks beside it",
    "batch": "pictures a step; the last batch of an epoch may be smaller",
    "epochs": "passes over the training pictures, reshuffled each time",
    "Experiment.seed": "of the initial weights, the order of the pictures and dropout; "
    "a study sets it",
    "validation": "the test pictures (as in the classic study), or a share of the training "
    "pictures held out by class, the same ones for every seed",
    "early_stopping": "a rule to stop before the last epoch",
    "published": "figures to stand beside ours; no effect on training",
    "Permuted.seed": "of the order of the pixels, which all runs share",
    "height": "rows of a patch; divides the picture's rows",
    "width": "columns of a patch; divides the picture's columns",
    "BatchNorm.momentum": "the share of the moving statistics that a step keeps",
    "BatchNorm.epsilon": "added to the variance",
    "Recurrent.units": "H, the size of the state; of each direction if `bidirectional`",
    "Recurrent.activation": "every nonlinearity of the cell but the sigmoid gates",
    "bidirectional": "read both ways and put the states side by side",
    "return_sequences": "give every state, not only the last",
    "rate": "the share that is zeroed",
    "Dense.units": "outputs",
    "Dense.activation": "of the outputs",
    "Pool.by": "mean, maximum or both over time",
    "learning_rate": "before the schedule's factor",
    "beta_1": "decay of the mean gradient",
    "beta_2": "decay of the mean squared gradient",
    "epsilon": "keeps the divisor above 0",
    "weight_decay": "the share of every parameter that a step takes away, times the learning rate",
    "rho": "decay of the mean squared gradient",
    "momentum": "the share of the last move that is made again",
    "nesterov": "look ahead: the gradient counts as if after the move",
    "Exponential.final": "the factor at the last step",
    "Cosine.final": "the factor at the last step",
    "OneCycle.final": "the factor at the last step",
    "Cosine.warmup": "the share of steps that rise linearly to 1",
    "OneCycle.warmup": "the share of steps that rise to 1",
    "start": "the factor at the first step",
    "Clipping.by": "what is bounded",
    "limit": "the bound",
    "monitor": "what should improve",
    "patience": "epochs without improvement after which training stops",
    "min_delta": "a smaller change is no improvement",
    "restore_best": "keep the weights of the best epoch, not of the last",
    "accuracy": "training accuracy, 0..1",
    "val_accuracy": "validation accuracy, 0..1",
    "source": "where the figures stand",
}


def main() -> None:
    """Bring the page up to date."""
    text = fill(PAGE.read_text("utf-8"), "keys", reference())
    for name, experiment in examples(text).items():
        text = fill(text, f"network: {name}", f"```text\n{table(experiment)}\n```")
    bring_up_to_date(PAGE, text)


def examples(text: str) -> dict[str, Experiment]:
    """The experiments among the page's TOML blocks by name."""
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    trees = [tomllib.loads(block) for block in blocks]
    found = [Experiment.model_validate(tree) for tree in trees if "experiments" not in tree]
    return {experiment.name: experiment for experiment in found}


def table(experiment: Experiment) -> str:
    """A network's summary for MNIST's pictures."""
    return Network(experiment, SHAPE, CLASSES).summary()


def reference() -> str:
    """Every part with its tables."""
    schema = Study.model_json_schema()
    models = {"Study": schema, **schema["$defs"]}
    if missing := models.keys() - LINKS.keys():
        raise ValueError(f"these models stand in no part of the page: {sorted(missing)}")
    lines: list[str] = []
    used: set[str] = set()
    for title, sentence, names in PARTS:
        lines += [f"### {title}", "", *([sentence, ""] if sentence else [])]
        for name in names:
            lines += _model(name, models[name], used)
    if unused := MEANING.keys() - used:
        raise ValueError(f"MEANING has keys that no model has: {sorted(unused)}")
    return "\n".join(lines)


def _model(name: str, schema: dict[str, Any], used: set[str]) -> list[str]:
    kind = schema["properties"].get("kind")
    kinds = (kind.get("enum") or [kind["const"]]) if kind else []
    head = f"**{', '.join(f'`{one}`' for one in kinds)}.** " if kinds else ""
    described = re.sub(r"(?<!\n)\n(?!\n)", " ", schema["description"])
    lines = [head + described, ""]
    rows = [_row(name, key, of, used) for key, of in schema["properties"].items() if key != "kind"]
    if rows:
        lines += ["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    return lines


def _row(model: str, key: str, schema: dict[str, Any], used: set[str]) -> str:
    place = f"{model}.{key}" if f"{model}.{key}" in MEANING else key
    if place not in MEANING:
        raise ValueError(f"MEANING lacks {model}.{key}")
    used.add(place)
    value = KIND_OF_VALUE.get(key) or _value(schema)
    return f"| `{key}` | {value} | {_default(schema)} | {MEANING[place]} |"


def _value(schema: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in schema or "oneOf" in schema:
        refs = [schema] if "$ref" in schema else schema["oneOf"]
        link = LINKS[refs[0]["$ref"].rpartition("/")[2]]
        word = link.removesuffix("s").replace("-", " ") if len(refs) > 1 else "table"
        article = "an" if word[0] in "aeio" else "a"
        return f"[{article} {word}](#{link})"
    if "anyOf" in schema:
        return _value(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f'`"{one}"`' for one in schema["enum"])
    if schema["type"] == "array":
        return _list(schema)
    if schema["type"] == "boolean":
        return "`true` or `false`"
    if schema["type"] == "string":
        return (
            f"text, at most {schema['maxLength']:,} characters"
            if "maxLength" in schema
            else ("text")
        )
    return _number(schema)


def _list(schema: dict[str, Any]) -> str:
    items = schema["items"]
    refs = items.get("oneOf", [items])
    link = LINKS[refs[0]["$ref"].rpartition("/")[2]]
    plural = link if link.endswith(("s", "es")) else f"{link}s"
    least = f"{schema['minItems']} to " if "minItems" in schema else "at most "
    return f"a list of {least}{schema['maxItems']} [{plural}](#{link})"


def _number(schema: dict[str, Any]) -> str:
    whole = schema["type"] == "integer"
    low, high = schema.get("minimum"), schema.get("maximum")
    if whole and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1
    limits = []
    if "exclusiveMinimum" in schema:
        limits.append(f"above {schema['exclusiveMinimum']}")
    elif low is not None:
        limits.append(f"from {low:,}")
    if high is not None:
        limits.append(f"to {high:,}" if limits[0].startswith("from") else f"up to {high:,}")
    elif "exclusiveMaximum" in schema:
        limits.append(f"below {schema['exclusiveMaximum']}")
    return f"{'whole number' if whole else 'number'} {', '.join(limits).replace(', to', ' to')}"


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return "required"
    default = schema["default"]
    if isinstance(default, dict):
        default = default["kind"]
    if default in (None, "", []):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default:g}`"


if __name__ == "__main__":
    main()
