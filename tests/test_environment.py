"""The environment is plain data that says what a result depends on."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata

import numpy as np

from rowwise import __version__
from rowwise.environment import environment, processor


def test_it_names_versions_processor_and_threads(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rowwise", "train", "lstm-tanh"])
    told = environment(threads=3)
    assert json.loads(json.dumps(told)) == told
    assert told["python"] == platform.python_version()
    assert told["packages"]["numpy"] == np.__version__
    assert told["packages"]["rowwise"] == metadata.version("rowwise")
    assert metadata.version("rowwise") == __version__
    assert "no-such-package" not in told["packages"]
    assert told["threads"] == 3
    assert told["logical_cores"] == os.cpu_count()
    assert told["command"] == ["rowwise", "train", "lstm-tanh"]
    assert told["processor"] == processor() != ""
    assert told["machine"] == platform.machine()


def test_it_imports_none_of_the_packages_that_it_names(monkeypatch):
    for name in ("torch", "sklearn", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)  # an import would now fail
    assert "torch" in environment(threads=1)["packages"]
