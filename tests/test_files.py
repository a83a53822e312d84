"""Files are whole or absent, and what is read is checked."""

from __future__ import annotations

import json
import os

import pytest
from made_data import tree

from rowwise import files
from rowwise.errors import RunError
from rowwise.files import (
    make_folder,
    read_json,
    read_text,
    remove_parts,
    write_beside,
    write_bytes,
    write_json,
    write_text,
)


def test_what_is_written_is_read_again(tmp_path):
    write_text(tmp_path / "a.txt", "früh\nspät\n")
    assert (tmp_path / "a.txt").read_bytes() == "früh\nspät\n".encode()
    assert read_text(tmp_path / "a.txt") == "früh\nspät\n"
    write_json(tmp_path / "a.json", {"a": [1, 0.1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 0.1, None]}
    write_bytes(tmp_path / "a.bin", bytes(range(256)))
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(256))
    assert len(tree(tmp_path)) == 3


def test_a_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    seen = []

    def write_slowly(beside):
        with beside.open("w") as file:
            for letter in "new":
                file.write(letter)
                file.flush()
                seen.append(path.read_text())

    write_beside(path, write_slowly)
    assert seen == ["old"] * 3
    assert path.read_text() == "new"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ZeroDivisionError])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, fault):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(beside):
        beside.write_text("ne")
        raise fault

    with pytest.raises(fault):
        write_beside(path, fail)
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"^cannot write .*a\.txt: No space left on device$"):
        write_text(path, "new")
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), sync(fd)))
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, to: (order.append("rename"), replace(self, to))
    )
    write_text(tmp_path / "a.txt", "new")
    assert order == ["sync", "rename"]


def test_a_place_that_is_none(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*: No such file or directory"):
        write_text(tmp_path / "away" / "a.txt", "new")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"cannot write .*: Not a directory"):
        write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(RunError, match=r"cannot make the folder .*: Not a directory"):
        make_folder(tmp_path / "file" / "below")
    assert tree(tmp_path) == {"file": b"mine"}


def test_two_processes_write_beside_each_other(tmp_path, monkeypatch):
    """Each has a name of its own beside the file, so that neither renames the other's half."""
    path, names = tmp_path / "a.txt", []

    def write(beside):
        names.append(beside.name)
        beside.write_text("x")

    for process in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        write_beside(path, write)
    assert names == [".a.txt.1.part", ".a.txt.2.part"]


def test_left_over_parts_are_removed_and_nothing_else(tmp_path):
    for name in (".a.json.12.part", "a.json", "b.part", ".hidden"):
        (tmp_path / name).write_text("x")
    remove_parts(tmp_path)
    assert sorted(tree(tmp_path)) == [".hidden", "a.json", "b.part"]
    remove_parts(tmp_path / "away")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: it is not valid JSON"),
        (b'{"a": 1', "is damaged: it is not valid JSON"),
        (b"[" * 100_000, "is damaged: it is not valid JSON"),
        (b"[1]", "is damaged: it must hold an object, got a list"),
        (b"\xff\xfe{}", "is damaged: it is not UTF-8 text"),
        (b'{"format": 2}', "has format 2, this rowwise reads format 1; use the version that"),
        (b'{"format": "1"}', "has format '1', this rowwise reads format 1"),
    ],
)
def test_a_damaged_json_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_or_huge_file_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"^cannot read .*a\.json: No such file or directory$"):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match=r"^cannot read .*: Is a directory$"):
        read_text(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 5)
    with pytest.raises(RunError, match="expected at most 5 bytes, found 8"):
        read_json(tmp_path / "a.json")
