"""Files of named tensors: the same content is the same bytes, and is read again."""

from __future__ import annotations

import numpy as np
import safetensors.numpy

from rowwise import tensors

KIND = "a test 1"
ARRAYS = {
    "b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(3, dtype=np.uint64),
    "none": np.zeros((0, 4), np.float32),
    "é": np.float64([[1e-300]]),
}
TOLD = {f"key {i}": f'{i} é "quoted"\n' for i in range(20)}


def test_the_same_content_is_the_same_bytes(tmp_path):
    written = set()
    for i in range(5):
        turned = dict(reversed(TOLD.items())) if i % 2 else TOLD
        tensors.write(tmp_path / "t", KIND, ARRAYS, turned)
        written.add((tmp_path / "t").read_bytes())
    assert len(written) == 1


def test_what_is_written_is_read_again(tmp_path):
    tensors.write(tmp_path / "t", KIND, ARRAYS, TOLD)
    found, told = tensors.read(tmp_path / "t", KIND)
    assert told == {"format": KIND, **TOLD}
    other = safetensors.numpy.load((tmp_path / "t").read_bytes())
    assert found.keys() == other.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        for one in (found[name], other[name]):
            assert one.dtype == array.dtype
            np.testing.assert_array_equal(one, array)
