"""Make classic_study.ipynb from classic_study.py: cells, executed, with their outputs.

The source is a Python file in which `# %%` begins a cell of code and `# %% [markdown]` one of
text. MNIST is found as everywhere (ROWWISE_DATA). --study names the folder of a finished study, of
which a copy is read; without it the study is trained, which takes long.

    python examples/make_notebook.py --study study
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SOURCE = Path(__file__).with_name("classic_study.py")
NOTEBOOK = Path(__file__).with_name("classic_study.ipynb")
SECONDS_A_CELL = 7200
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def build(parameters: Mapping[str, Any] | None = None) -> nbformat.NotebookNode:
    """The notebook without outputs; `parameters` replace the values of its first code cell."""
    cells = []
    parts = re.split(r"^# %%", SOURCE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    for place, part in enumerate(parts):
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cell = new_markdown_cell(text)
        else:
            cell = new_code_cell(body.strip())
        cell["id"] = f"cell-{place:02}"
        cells.append(cell)
    first = next(cell for cell in cells if cell.cell_type == "code")
    for name, value in (parameters or {}).items():
        first.source, found = re.subn(
            rf"^{name} = .*$", f"{name} = {value!r}", first.source, flags=re.MULTILINE
        )
        if found != 1:
            raise ValueError(f"the notebook has no parameter {name}")
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def execute(notebook: nbformat.NotebookNode, *, study: Path | None = None) -> None:
    """Run every cell in a folder of its own, beside a copy of `study`; outputs go into it."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place) / "examples"
        here.mkdir()
        if study is not None:
            shutil.copytree(study, here.parent / "study")
        client = NotebookClient(
            notebook,
            timeout=SECONDS_A_CELL,
            record_timing=False,
            resources={"metadata": {"path": str(here)}},
        )
        client.execute()
    _tidy(notebook)


def _tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave no trace of the machine: language_info has its Python, displays have random ids."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "transient" in output:
                del output["transient"]


def main() -> None:
    """Write the notebook."""
    parser = argparse.ArgumentParser(description="Make and execute examples/classic_study.ipynb.")
    parser.add_argument("--study", type=Path, help="the folder of a finished study to read")
    study = parser.parse_args().study
    if study is not None and not (study / "study.json").is_file():
        parser.error(f"--study needs the folder of a study, {study} has no study.json")
    notebook = build()
    execute(notebook, study=study)
    NOTEBOOK.write_text(nbformat.writes(notebook) + "\n", "utf-8")


if __name__ == "__main__":
    main()
