"""Write the table of settings in docs/serving.md, from the configuration and the options' help.

python docs/make_serving.py            write the page
python docs/make_serving.py --check    exit 1 where it is stale
"""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

from marked import bring_up_to_date, fill

from rowwise.server.configuration import Configuration
from rowwise.serving import serve

PAGE = Path(__file__).with_name("serving.md")
KEYS = {"model": "models", "origin": "origins", "host_name": "hosts", "proxy": "proxies"}
NO_OPTION = {"api_keys": "API keys that let in."}


def main() -> None:
    """Bring the page up to date."""
    bring_up_to_date(PAGE, fill(PAGE.read_text("utf-8"), "settings", table()))


def table() -> str:
    """A line a key, in their order; a default is the one that the option's help tells."""
    told = {key: ("none", meaning) for key, meaning in NO_OPTION.items()}
    hints = typing.get_type_hints(serve, include_extras=True)
    for name in inspect.signature(serve).parameters:
        option = typing.get_args(hints[name])[1]
        first = [option.default, *option.param_decls][0]  # in Annotated its default is its name
        flag = f"`{first}`".replace("/", "`, `")
        told[KEYS.get(name, name)] = flag, option.help
    lines = ["| key | option | default | is |", "|---|---|---|---|"]
    for key, field in Configuration.model_fields.items():
        flag, text = told[key]
        meaning, _, default = text.removesuffix(".").partition("; default: ")
        if not default:
            default = str(field.default).lower() if field.default not in ("", ()) else "none"
        lines.append(f"| `{key}` | {flag} | {default} | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
