"""ONNX models: every network of the conformance suite, read by ONNX Runtime."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conformance import CASES, Case

from rowwise import __version__, onnx_model
from rowwise.engines import plain
from rowwise.errors import MissingExtra

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'rowwise[export]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'rowwise[export]'")

# ONNX Runtime approximates tanh and the sigmoid; the largest difference seen here is 2e-7.
TOLERANCE = 1e-5


def drawn(case: Case, count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *case.shape), dtype=np.uint8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnx_runtime_gives_the_probabilities_of_the_equations(case):
    names = [f"class {c}" for c in range(case.classes)]
    model = onnx_model.build(case.network, case.weights, names).SerializeToString()
    for count in (1, 5):
        images = drawn(case, count)
        expected = plain.predict(case.network, case.weights, images)
        np.testing.assert_allclose(onnx_model.read(model, images), expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def case() -> Case:
    [found] = [case for case in CASES if case.name == "branches"]
    return found


@pytest.fixture(scope="module")
def model(case):
    return onnx_model.build(case.network, case.weights, list("abcdefghij"))


def test_the_model_says_what_it_takes_and_gives(model):
    def told(value):
        shape = value.type.tensor_type.shape.dim
        sizes = [d.dim_param or d.dim_value for d in shape]
        return value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type), sizes

    assert [told(value) for value in model.graph.input] == [("pictures", "UINT8", ["batch", 4, 6])]
    assert [told(value) for value in model.graph.output] == [
        ("probabilities", "FLOAT", ["batch", 10]),
        ("label", "INT64", ["batch"]),
    ]


def test_the_model_says_what_it_is(model, case):
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told.pop("classes")) == list("abcdefghij")
    assert told == {"name": "case", "rowwise": __version__, "digest": case.experiment.digest}
    assert (model.producer_name, model.opset_import[0].version) == ("rowwise", 17)


def test_the_label_is_the_most_probable_class(model, case):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    shares, labels = session.run(None, {"pictures": drawn(case, 200)})
    np.testing.assert_array_equal(labels, shares.argmax(axis=1))
    assert len(set(labels.tolist())) > 1


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, monkeypatch, case, model):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    call = {
        "onnx": lambda: onnx_model.build(case.network, case.weights, []),
        "onnxruntime": lambda: onnx_model.read(model.SerializeToString(), drawn(case, 1)),
    }[package]
    with pytest.raises(MissingExtra, match=rf"package {package}, .*rowwise\[export\]"):
        call()
