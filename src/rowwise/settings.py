"""Settings: frozen models read from TOML or JSON and changed by key; what is wrong is one line.

Modules that define such models have no `from __future__ import annotations`: pydantic would compile
each annotation a second time, whenever a command starts.
"""

import difflib
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowwise import files
from rowwise.errors import ConfigError

MAX_FILE_BYTES = 1_000_000


class Settings(BaseModel):
    """Base of every model of settings: frozen, complete, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Later:
    """Marks a key that came after the first release: `key: Annotated[TYPE, Later()] = DEFAULT`.

    Its default means "as before the key", since a file written before has no such key and is read
    with the default. While the key holds it, a digest leaves the key out.
    """


Model = TypeVar("Model", bound=Settings)

Rate = Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Flag = Annotated[bool, Field(strict=True)]


def default(kind: type[Settings]) -> Any:
    """A key's default of this kind, made when first asked for: completing a model takes time."""
    name = kind.model_fields["kind"].default
    return Field(default_factory=kind, json_schema_extra={"default": {"kind": name}})


def named(value: Any) -> Any:
    """Let the bare name of a kind stand for its table: "adam" is {kind = "adam"}."""
    return {"kind": value} if isinstance(value, str) else value


def parse(model: type[Model], tree: Mapping[str, Any], *, where: str) -> Model:
    """`tree` as a checked `model`; `where` names the file or flag in the error.

    Raises ConfigError with one line: the key, the rule, what was got, the nearest right key.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, error)}") from None


def read(model: type[Model], path: Path) -> Model:
    """The settings in a TOML or JSON file.

    Raises ConfigError where the file cannot be read or breaks a rule.
    """
    text = files.read_text(path, MAX_FILE_BYTES, ConfigError)
    parse_text = files.parse_object if path.suffix == ".json" else files.parse_toml
    return parse(model, parse_text(text, ConfigError, str(path)), where=str(path))


def content_digest(settings: Settings, *, without: Iterable[str]) -> str:
    """SHA-256 of all settings but those `without` counting, as canonical JSON.

    A key that is marked as `Later`, at any depth, counts only where it differs from its default:
    settings that say nothing new keep the digest that every earlier version gave them, so that
    the runs which that version saved are known again.
    """
    tree = settings.model_dump(mode="json", exclude=set(without))
    counted = json.dumps(_counted(settings, tree), sort_keys=True)
    return hashlib.sha256(counted.encode()).hexdigest()


def _counted(value: Any, tree: Any) -> Any:
    """The plain data `tree` of `value` without the later keys that hold their default."""
    if isinstance(value, Settings):
        return {
            key: _counted(getattr(value, key), below)
            for key, below in tree.items()
            if not _says_nothing_new(value, key)
        }
    if isinstance(value, tuple):
        return [_counted(*pair) for pair in zip(value, tree, strict=True)]
    return tree


def _says_nothing_new(settings: Settings, key: str) -> bool:
    field = type(settings).model_fields[key]
    later = any(isinstance(mark, Later) for mark in field.metadata)
    return later and getattr(settings, key) == field.get_default(call_default_factory=True)


def as_tree(value: Any) -> Any:
    """Settings as plain data that `set_key` can change: what was given, and every kind.

    What was not given is left to its default, so that a changed `kind` brings its own defaults.
    """
    if isinstance(value, Settings):
        given = value.model_fields_set
        return {
            key: as_tree(below)
            for key, below in value
            if key in given or key == "kind" or isinstance(below, Settings)
        }
    if isinstance(value, tuple):
        return [as_tree(below) for below in value]
    return value


def set_key(tree: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in plain data; the value is TOML, or else a bare string.

    Raises ConfigError for an override of another form, and for a place that cannot be.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or not override.isprintable():
        raise ConfigError(f"--set takes key=value, such as layers.1.units=256, got {override!r}")
    place: Any = tree
    for depth, part in enumerate(parts[:-1]):
        index = _index(place, part, parts[:depth], override)
        below = place[index] if isinstance(place, list) else place.setdefault(index, {})
        if isinstance(below, str):
            below = place[index] = {"kind": below}
        place = below
    place[_index(place, parts[-1], parts[:-1], override)] = _value(text)


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the known word closest to `word`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def _index(place: Any, part: str, before: list[str], override: str) -> Any:
    """`part` as a key of a table or an index of a list."""
    where = ".".join(before)
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise ConfigError(f"--set {override}: {where} is a value, not a table")
    if not part.isdecimal() or int(part) >= len(place):
        rule = f"has the indices 0 to {len(place) - 1}" if place else "is empty"
        raise ConfigError(f"--set {override}: the list {where} {rule}, got {part!r}")
    return int(part)


# --- explaining -------------------------------------------------------------------------------

_RULES = {
    "missing": "this key must be given",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be a string",
    "tuple_type": "should be a list",
    "model_type": "should be a table of keys",
    "model_attributes_type": "should be a table with a `kind`, or the bare name of a kind",
    "union_tag_not_found": "should be a table with a `kind`, or the bare name of a kind",
    "too_short": "should have at least {min_length} item(s)",
    "too_long": "should have at most {max_length} items",
    "string_too_long": "should have at most {max_length} characters",
}


def _explain(model: type[Settings], error: ValidationError) -> str:
    """The first fault of a ValidationError as one line for the user."""
    faults = error.errors(include_url=False, include_context=True)
    # A list that lost an item to a fault inside it may also be called too short.
    faults = [f for f in faults if not any(_inside(g["loc"], f["loc"]) for g in faults)]
    # An unknown key often explains a missing one beside it, so it is told first.
    fault = min(faults, key=lambda f: f["type"] != "extra_forbidden")
    owner, shown = _walk(model, fault["loc"])
    key = ".".join(shown)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_hint(owner, shown)}{more}"
    told, got, context = f"{key}: " if key else "", _short(fault["input"]), fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid":
        known = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        told += f"kind should be one of {', '.join(known)}, got {context['tag']!r}"
        return f"{told}{nearest(str(context['tag']), known)}{more}"
    if fault["type"] == "value_error":
        return f"{told}{context['error']}{more}"
    rule = _RULES.get(fault["type"], fault["msg"].removeprefix("Input ")).format(**context)
    return f"{told}{rule}{more}" if fault["type"] == "missing" else f"{told}{rule}, got {got}{more}"


def _inside(location: tuple[Any, ...], outer: tuple[Any, ...]) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(owner: type[Settings], shown: list[str]) -> str:
    """The right key for an unknown one: of a name like it here, or of its name one table down."""
    *before, key = shown
    close = difflib.get_close_matches(key, owner.model_fields, n=1)
    if close:
        return f"; did you mean {'.'.join([*before, close[0]])!r}?"
    for name, field in owner.model_fields.items():
        below = [name, "0"] if _is_list(field.annotation) else [name]
        if key != "kind" and any(key in m.model_fields for m in _models(field.annotation)):
            return f"; did you mean {'.'.join([*before, *below, key])!r}?"
    return f"; known: {', '.join(sorted(owner.model_fields))}"


def _walk(model: type[Settings], location: tuple[int | str, ...]) -> tuple[Any, list[str]]:
    """The model that owns the last key of a pydantic location, and the location as users write it.

    Tags of unions, which pydantic puts between the keys, are left out.
    """
    owner: Any = model
    here: Any = model
    shown: list[str] = []
    for part in location:
        members = _models(here)
        tagged = [m for m in members if _answers_to(m, part)] if len(members) > 1 else []
        if tagged:
            here = tagged[0]
            continue
        shown.append(str(part))
        if isinstance(part, str):
            owner = members[0] if members else owner
            field = owner.model_fields.get(part)
            here = field.annotation if field else None
    return owner, shown


def _answers_to(model: type[Settings], tag: int | str) -> bool:
    kind = model.model_fields.get("kind")
    return kind is not None and tag in typing.get_args(kind.annotation)


def _models(annotation: Any) -> list[type[Settings]]:
    """The settings models inside an annotation, unions, tuples and Annotated unfolded."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    if typing.get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        return [m for a in typing.get_args(annotation) for m in _models(a)]
    return []


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return origin is tuple or (origin is Annotated and _is_list(typing.get_args(annotation)[0]))
