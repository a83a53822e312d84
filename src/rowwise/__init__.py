"""Rowwise: recurrent networks that read handwritten digits, one row at a time.

>>> import rowwise
>>> data = rowwise.load_data()
>>> experiment = rowwise.Experiment(name="mine", layers=[{"kind": "lstm", "units": 64}])
>>> result = rowwise.fit(experiment, data)
>>> result.test_accuracy
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rowwise._version import __version__ as __version__

if TYPE_CHECKING:
    from rowwise.config import Experiment as Experiment
    from rowwise.config import Study as Study
    from rowwise.config import shipped_studies as shipped_studies
    from rowwise.data import Dataset as Dataset
    from rowwise.data import load as load_data
    from rowwise.errors import RowwiseError as RowwiseError
    from rowwise.estimator import RowwiseClassifier as RowwiseClassifier
    from rowwise.export import export_keras as export_keras
    from rowwise.export import export_onnx as export_onnx
    from rowwise.keras_import import import_keras as import_keras
    from rowwise.network import Network as Network
    from rowwise.recognise import Reading as Reading
    from rowwise.recognise import Recogniser as Recogniser
    from rowwise.report import write as write_report
    from rowwise.runs import Run as Run
    from rowwise.study import run as run_study
    from rowwise.summary import summarise as summarise
    from rowwise.train import Result as Result
    from rowwise.train import fit as fit

_HOMES = {
    "Dataset": ("rowwise.data", "Dataset"),
    "Experiment": ("rowwise.config", "Experiment"),
    "Network": ("rowwise.network", "Network"),
    "Reading": ("rowwise.recognise", "Reading"),
    "Recogniser": ("rowwise.recognise", "Recogniser"),
    "Result": ("rowwise.train", "Result"),
    "RowwiseError": ("rowwise.errors", "RowwiseError"),
    "RowwiseClassifier": ("rowwise.estimator", "RowwiseClassifier"),
    "Run": ("rowwise.runs", "Run"),
    "Study": ("rowwise.config", "Study"),
    "export_keras": ("rowwise.export", "export_keras"),
    "export_onnx": ("rowwise.export", "export_onnx"),
    "fit": ("rowwise.train", "fit"),
    "import_keras": ("rowwise.keras_import", "import_keras"),
    "load_data": ("rowwise.data", "load"),
    "run_study": ("rowwise.study", "run"),
    "shipped_studies": ("rowwise.config", "shipped_studies"),
    "summarise": ("rowwise.summary", "summarise"),
    "write_report": ("rowwise.report", "write"),
}
__all__ = [
    "Dataset",
    "Experiment",
    "Network",
    "Reading",
    "Recogniser",
    "Result",
    "RowwiseClassifier",
    "RowwiseError",
    "Run",
    "Study",
    "__version__",
    "export_keras",
    "export_onnx",
    "fit",
    "import_keras",
    "load_data",
    "run_study",
    "shipped_studies",
    "summarise",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import rowwise` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rowwise' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
