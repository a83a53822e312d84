"""The folder of several processes' numbers: private, and removed by the last that needs it."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

from rowwise.server import metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks as POSIX has them")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_server(place):
    with metrics.Folder() as folder:
        assert folder.path.parent == place
        assert folder.path.stat().st_mode & 0o777 == 0o700
        (folder.path / "counter_1.db").write_bytes(b"x")
    assert list(place.iterdir()) == []


def test_what_a_killed_server_left_goes_when_the_next_one_starts(place):
    left = metrics.Folder()
    with metrics.Folder():
        assert left.path.exists()  # it lives
    os.close(left.lock)  # as if it had been killed
    with metrics.Folder():
        assert not left.path.exists()


def test_what_is_no_servers_folder_stays(place):
    other = place / "rowwise-serve-mine"
    other.mkdir()
    (place / "rowwise-serve-link").symlink_to(other)
    with metrics.Folder():
        pass
    assert sorted(one.name for one in place.iterdir()) == ["rowwise-serve-link", other.name]


def test_only_the_last_process_removes_it(place):
    folder = metrics.Folder()
    other = os.dup(folder.lock)  # as a worker has it
    metrics.remove_if_last(folder.path, other)
    assert folder.path.exists()
    metrics.remove_if_last(folder.path, folder.lock)
    assert not folder.path.exists()
