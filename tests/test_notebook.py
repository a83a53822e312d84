"""The notebook: the committed one is current and whole, its cells run on scikit-learn's digits."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re

import pytest
from pages import ROOT
from PIL import Image

pytest.importorskip("nbclient", reason="needs nbclient: pip install 'rowwise[test]'")

EXAMPLES = ROOT / "examples"
SPEC = importlib.util.spec_from_file_location("make_notebook", EXAMPLES / "make_notebook.py")
make_notebook = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_notebook)
NOTEBOOK = json.loads((EXAMPLES / "classic_study.ipynb").read_text("utf-8"))


def outputs(notebook, kind: str) -> list:
    """All outputs of a media type, whether printed or displayed."""
    every = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    return [o["data"][kind] for o in every if kind in o.get("data", {})]


def test_the_committed_notebook_has_the_cells_of_its_source():
    made = json.loads(make_notebook.nbformat.writes(make_notebook.build()))
    cells = [(cell["cell_type"], cell["source"]) for cell in NOTEBOOK["cells"]]
    assert cells == [(cell["cell_type"], cell["source"]) for cell in made["cells"]]


def test_the_committed_notebook_was_executed_from_top_to_bottom():
    counts = [c["execution_count"] for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {o["output_type"] for c in NOTEBOOK["cells"] for o in c.get("outputs", [])}
    assert "error" not in kinds
    warned = [
        o for c in NOTEBOOK["cells"] for o in c.get("outputs", []) if o.get("name") == "stderr"
    ]
    assert warned == []


def test_the_committed_notebook_shows_mnist_and_names_no_machine():
    text = json.dumps([c.get("outputs", []) for c in NOTEBOOK["cells"]])
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert "mnist: 60,000 training and 10,000 test images" in text
    assert re.findall(r"(?<![\w.])/(?:home|root|work|tmp|Users)/\S*", text) == []


def test_the_committed_pictures_are_whole():
    drawn = outputs(NOTEBOOK, "image/png")
    assert len(drawn) >= 12
    for data in drawn:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        picture.load()
        assert min(picture.size) > 100


@pytest.mark.filterwarnings("ignore::DeprecationWarning:(jupyter|zmq|tornado|ipykernel|nbclient).*")
def test_its_cells_run_on_the_digits_of_scikit_learn(monkeypatch):
    """Without a finished study: the two smaller networks are trained here, two seeds each."""
    monkeypatch.delenv("ROWWISE_DATA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = make_notebook.build(
        {"DATASET": "digits", "SEEDS": 2, "ONLY": ("rnn-relu", "rnn-tanh"), "EPOCHS": 1}
    )
    make_notebook.execute(notebook)
    assert len(outputs(notebook, "image/png")) == len(outputs(NOTEBOOK, "image/png"))
    assert "Best network." in outputs(notebook, "text/markdown")[-1]
