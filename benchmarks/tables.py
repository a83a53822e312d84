"""Write the generated parts of docs/benchmarks.md, tables and plots, from the files in results/.

A part whose file is not there is left as it is. Ratios are taken round by round from one run, in
which the contenders took turns, and are told as median (least–most).

    python benchmarks/tables.py
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equivalence
import serving_tables
import trial_tables
from measuring import BUSY_LOAD, HERE, RESULTS
from networks import TRAINING_IMAGES

ROOT = HERE.parent
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "pictures"

Results = dict[str, Any]
NAMES = {
    "keras": "Keras, TensorFlow",
    "keras:call": "Keras, tf.function",
    "keras:on_batch": "Keras, predict_on_batch",
    "keras:predict": "Keras, predict",
    "torch": "PyTorch",
    "torch:bfloat16": "PyTorch, bfloat16",
    "torch:compile": "PyTorch, compiled",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}
NONE = "–"


def name(label: str) -> str:
    """A contender as people know it."""
    kind, _, rest = label.partition(":")
    return NAMES.get(label) or f"{kind.capitalize()}, {rest.replace(':', ', ')}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three figures, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def shown(values: list[float]) -> str:
    """Median (least–most); of one value that alone, of none a dash."""
    if not values:
        return NONE
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}–{number(max(values))})"


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Quotients round by round."""
    return [a / b for a, b in zip(over, under, strict=False)]


def machine(results: Results, *, rounds: bool = True) -> str:
    """The line on hardware and versions under a heading."""
    hardware = results["hardware"]
    paths = ", ".join(hardware["paths"]) or "none"
    line = (
        f"{hardware['processor']}, {hardware['cores']} cores, {results['threads']} threads each; "
        f"paths of the native engine here: {paths}; Python {results['python']}"
    )
    told = versions(results)
    line += f"; {', '.join(f'{key} {value}' for key, value in told.items())}" if told else ""
    many = ""
    if rounds and (found := sorted(set(counts(results)))):
        many = f"; n = {' to '.join(map(str, dict.fromkeys([found[0], found[-1]])))}"
    smoke = "**A smoke run: these figures mean nothing.** " if results["quick"] else ""
    load = results["load_before"]
    busy = f" Other work kept the machine busy (load {load})." if load and load > BUSY_LOAD else ""
    return f"{smoke}{line}{many}.{busy}"


def counts(results: Any) -> list[int]:
    """All numbers of values that stand anywhere in the results."""
    if not isinstance(results, dict):
        return []
    own = [results["n"]] if results.get("n") else []
    return own + [n for value in results.values() for n in counts(value)]


def versions(results: Any) -> dict[str, str]:
    """All versions that stand anywhere in the results."""
    found: dict[str, str] = {}
    if isinstance(results, dict):
        for key, value in results.items():
            found |= value if key == "versions" else versions(value)
    return found


# --- training ----------------------------------------------------------------------------------


def epoch_seconds(network: Results, label: str) -> list[float]:
    """Seconds for 60,000 pictures in each round."""
    scale = TRAINING_IMAGES / network["images"]
    return [scale * value for value in network["contenders"][label]["seconds"].get("values", [])]


def training(results: Results) -> str:
    """Seconds an epoch, ratios, what shows that all train alike, and the share of the peak."""
    networks = results["networks"]
    labels = list(next(iter(networks.values()))["contenders"])
    header = ["network", *map(name, labels)]
    seconds, against, learned, shares = [], [], [], []
    top = {kind: max(found.values()) for kind, found in results["peak_flops"].items()}
    for key, network in networks.items():
        of = {label: epoch_seconds(network, label) for label in labels}
        part = "" if network["images"] == TRAINING_IMAGES else f" ({network['images']:,})"
        seconds.append([key + part, *(shown(of[label]) for label in labels)])
        against.append([key, *(shown(ratios(of.get("keras", []), of[label])) for label in labels)])
        learned.append([key, *(last_accuracy(network["contenders"][label]) for label in labels)])
        work = network["flops_per_image"] * TRAINING_IMAGES
        shares.append([key, *(share(work, of[label], top["float32"]) for label in labels)])
    waits = [ready(networks, label) for label in labels]
    memory = [peak_memory(networks, label) for label in labels]
    peaks = ", ".join(f"{number(value / 1e9)} GFLOP/s in {kind}" for kind, value in top.items())
    return "\n\n".join(
        [
            f"{machine(results)} Where a turn trained on a part of the 60,000 "
            f"pictures their number stands in brackets; the seconds are scaled to all.",
            "Seconds an epoch, median (least–most):",
            table(header, seconds),
            "Keras' seconds / theirs, above 1 is faster than Keras:",
            table(header, against),
            "Training accuracy in the last round, in percent: all train the same network.",
            table(header, learned),
            f"Share of the processor's measured float32 peak, in percent of its rate in products "
            f"of large matrices (measured: {peaks}):",
            table(header, shares),
            "Seconds from process start to the first epoch (imports, data, building, compiling), "
            "the longest of all networks; and the most memory resident in training lstm-tanh, MB:",
            table(["", *header[1:]], [["ready after, s", *waits], ["memory, MB", *memory]]),
        ]
    )


def last_accuracy(contender: Results) -> str:
    """Accuracy of the last epoch in percent; a dash with the reason where there is none."""
    if contender.get("accuracy"):
        return f"{100 * contender['accuracy'][-1]:.1f}"
    return f"{NONE} ({contender.get('failed', 'no turn')})"


def share(work: float, seconds: list[float], peak: float) -> str:
    """Percent of the peak that the median epoch reached."""
    return f"{100 * work / statistics.median(seconds) / peak:.0f}" if seconds else NONE


def ready(networks: Results, label: str) -> str:
    """The longest wait for a contender."""
    waits = [one["contenders"][label].get("ready_s") for one in networks.values()]
    known = [wait for wait in waits if wait is not None]
    return number(max(known)) if known else NONE


def peak_memory(networks: Results, label: str) -> str:
    """The memory of a contender on lstm-tanh, or on the first network where that is not there."""
    network = networks.get("lstm-tanh") or next(iter(networks.values()))
    memory = network["contenders"][label].get("peak_mb")
    return NONE if memory is None else number(memory)


# --- the other tables --------------------------------------------------------------------------


def time_to_accuracy(results: Results) -> str:
    """Seconds to each target, and how many runs reached it."""
    plan = results["schedule"]
    rows = []
    for label, contender in results["contenders"].items():
        runs = contender["runs"]
        cells = []
        for target in map(str, results["targets"]):
            times = contender["reached"][target].get("values", [])
            missed = f", {len(times)} of {len(runs)}" if len(times) < len(runs) else ""
            cells.append(shown(times) + missed)
        ends = [100 * run["accuracy"][-1] for run in runs if run["accuracy"]]
        rows.append([name(label), *cells, shown_percent(ends), str(len(runs))])
    targets = [f"{100 * target:g} %" for target in results["targets"]]
    schedule = (
        f"{results['network']}, batch {results['batch']}, {plan['epochs']} epochs, learning rate "
        f"up to {plan['peak']:g} over the first {100 * plan['warm_up']:.0f} % of the steps, then "
        f"half a cosine down to 0."
    )
    header = ["contender", *targets, "accuracy at the end, %", "runs"]
    return f"{machine(results, rounds=False)}\n\n{schedule}\n\n{table(header, rows)}"


def shown_percent(values: list[float]) -> str:
    """Mean (least–most), two decimals."""
    if not values:
        return NONE
    return f"{statistics.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def inference(results: Results) -> str:
    """Latency and throughput of each network's contenders, against ONNX Runtime."""
    parts = [machine(results)]
    header = ["contender", "one picture, µs: median", "99th percentile", "10,000 pictures, ms"]
    header += ["in batches of", "ONNX Runtime / this: one", "10,000", "largest difference"]
    for key, contenders in results["networks"].items():
        reference = contenders.get("onnxruntime", {})
        rows = [reading_row(label, one, reference) for label, one in contenders.items()]
        parts += [f"**{key}**", table(header, rows)]
    return "\n\n".join(parts)


def fastest(contender: Results) -> tuple[str, list[float]]:
    """The batch size with the least median seconds for all pictures, and its seconds."""
    found = {batch: one["values"] for batch, one in contender.get("read_s", {}).items() if one["n"]}
    if not found:
        return NONE, []
    return min(found.items(), key=lambda item: statistics.median(item[1]))


def reading_row(label: str, contender: Results, reference: Results) -> list[str]:
    """One contender's line."""
    if not contender.get("calls"):
        return [name(label), f"{NONE} ({contender.get('failed', 'no turn')})", *[NONE] * 6]
    batch, seconds = fastest(contender)
    one = all_of_them = NONE
    if reference.get("calls"):
        one = number(reference["median_us"] / contender["median_us"])
        all_of_them = shown(ratios(fastest(reference)[1], seconds))
    return [
        name(label),
        number(contender["median_us"]),
        number(contender["p99_us"]),
        shown([1e3 * value for value in seconds]),
        batch,
        one,
        all_of_them,
        f"{contender['difference']:.0e}",
    ]


AXES = {"units": "units H", "batch": "batch B", "steps": "time steps T", "threads": "threads"}


def scaling(results: Results) -> str:
    """Microseconds a picture along each axis."""
    parts = [
        f"{machine(results)} Training an LSTM, µs a picture, median "
        f"(least–most); where nothing else is said H = 128, B = 128, T = 28 of 28 numbers."
    ]
    for axis, points in results["axes"].items():
        labels = [key for key in next(iter(points.values())) if ":" in key or key in NAMES]
        rows = []
        for value, point in points.items():
            taken = [point[label]["seconds_a_picture"].get("values", []) for label in labels]
            rows.append([value, *(shown([1e6 * one for one in values]) for values in taken)])
            rows[-1].append(shown(ratios(taken[-1], taken[0])))
        parts.append(table([AXES[axis], *map(name, labels), "ratio"], rows))
    return "\n\n".join([*parts, "![µs a picture along each axis](pictures/scaling.svg)"])


def footprint(results: Results) -> str:
    """Time and size of installations."""
    rows = [
        [what, shown(one["seconds"]["values"]), number(one["bytes"] / 1e6)]
        for what, one in results["installed"].items()
    ]
    header = ["installed", "seconds", "MB on disk"]
    return f"{machine(results)} pip's cache is {results['cache']}.\n\n{table(header, rows)}"


def whole_study(results: Results) -> str:
    """Seconds of the study from start to end."""
    contenders = results["contenders"]
    theirs = contenders.get("keras", {"seconds": {}})["seconds"].get("values", [])
    rows = []
    for label, one in contenders.items():
        seconds = one["seconds"].get("values", [])
        times = [statistics.median(theirs) / value for value in seconds] if theirs else []
        accuracy = ", ".join(
            f"{key} {100 * value:.2f}" for key, value in one["runs"][-1]["val_accuracy"].items()
        )
        memory = number(max(run["peak_mb"] for run in one["runs"]))
        rows.append([name(label), shown(seconds), shown(times), memory, accuracy])
    header = ["", "seconds", "Keras / this", "memory, MB", "validation accuracy, last run, %"]
    text = f"{machine(results)}\n\n{table(header, rows)}"
    if "newcomer" in results:
        steps = results["newcomer"]
        text += (
            f"\n\nFrom a clean clone without PyTorch, pip's cache warm: clone {steps['clone']:.1f} "
            f"s, set-up {steps['set_up']:.0f} s, `make study` of one seed {steps['study']:.0f} s."
        )
    return text


# --- plots -------------------------------------------------------------------------------------


def plot_scaling(results: Results, path: Path) -> None:
    """A panel an axis, both scales logarithmic, a line a contender."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    style = {"svg.fonttype": "none", "svg.hashsalt": "rowwise", "font.size": 9}
    with plt.rc_context(style):
        axes = results["axes"]
        figure, panels = plt.subplots(1, len(axes), figsize=(2.6 * len(axes), 2.6), squeeze=False)
        for panel, (axis, points) in zip(panels[0], axes.items(), strict=True):
            labels = [key for key in next(iter(points.values())) if ":" in key or key in NAMES]
            for label in labels:
                middle = {
                    int(value): 1e6 * point[label]["seconds_a_picture"]["median"]
                    for value, point in points.items()
                    if point[label]["seconds_a_picture"]["n"]
                }
                panel.loglog(middle.keys(), middle.values(), "o-", markersize=3, label=name(label))
            panel.set_xticks([int(value) for value in points], labels=list(points))
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            panel.set_xlabel(AXES[axis])
            panel.grid(alpha=0.3)
        panels[0][0].set_ylabel("µs a picture")
        panels[0][0].legend(frameon=False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


PARTS: dict[str, Callable[[Results], str]] = {
    "training": training,
    "equivalence": equivalence.table,
    "time_to_accuracy": time_to_accuracy,
    "inference": inference,
    "scaling": scaling,
    "footprint": footprint,
    "whole_study": whole_study,
    "recognisers": lambda found: trial_tables.recognisers(found, table),
    "realworld": lambda found: trial_tables.realworld(found, table),
    "corruptions": lambda found: trial_tables.corruptions(found, table),
    "surroundings": lambda found: trial_tables.surroundings(found, table),
    "not_digits": lambda found: trial_tables.not_digits(found, table),
    "faithfulness": lambda found: trial_tables.faithfulness(found, table),
    "learning": lambda found: trial_tables.learning(found, table),
    "reading": lambda found: trial_tables.reading(found, table, machine(found)),
    "serving": lambda found: serving_tables.serving(found, table, machine(found), shown),
}


def main() -> None:
    """Fill in every part whose results are there."""
    sys.path.insert(0, str(ROOT / "docs"))
    from marked import fill

    text = PAGE.read_text("utf-8")
    for part, tell in PARTS.items():
        path = RESULTS / f"{part}.json"
        if not path.exists():
            continue
        results = json.loads(path.read_text("utf-8"))
        text = fill(text, part, tell(results))
        if part == "scaling":
            plot_scaling(results, PICTURES / "scaling.svg")
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
