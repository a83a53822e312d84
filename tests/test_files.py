"""Files are whole or absent, and what is read is checked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import time
import zlib

import pytest
from made_data import tree

from rowwise import files
from rowwise.config import Study
from rowwise.errors import ConfigError, DataError, RunError
from rowwise.files import (
    check_outputs,
    make_folder,
    parsing,
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


def test_an_output_that_is_an_input_is_refused(tmp_path):
    (tmp_path / "data/deep").mkdir(parents=True)
    given = tmp_path / "data/deep/a.txt"
    given.write_text("kept")
    (tmp_path / "symlink").symlink_to(given)
    (tmp_path / "hard").hardlink_to(given)
    for out in (
        given,
        tmp_path / "symlink",
        tmp_path / "hard",
        tmp_path / "data/../data/deep/a.txt",
    ):
        for inputs in ([given], [str(given)], [tmp_path / "nothing", tmp_path / "data"]):
            with pytest.raises(ConfigError, match=f"{out}: an output overwrites no input, .*a.txt"):
                check_outputs([tmp_path / "free", out], inputs)
    with given.open() as file, pytest.raises(ConfigError, match="an output overwrites no input"):
        check_outputs([given], [file.fileno()])


def test_other_outputs_are_free(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("one")
    check_outputs([tmp_path / "b.txt", tmp_path / "new"], [tmp_path / "a.txt", tmp_path / "new"])


# --- what somebody else made ------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "a.json")
    with pytest.raises(RunError, match=r"^cannot read .*a\.json: expected a regular file, found a"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="expected a regular file, found a pipe or a device"):
        Study.from_file(tmp_path / "a.json")


@pytest.mark.parametrize(
    "fault",
    [
        *(RecursionError("x"), OverflowError("x"), MemoryError(), ValueError("x"), KeyError("x")),
        *(TypeError("x"), struct.error("x"), zlib.error("x"), SyntaxError("x"), EOFError()),
        *(
            UnicodeError("x\x1b[31m\ny"),
            AttributeError("x" * 10_000),
            RuntimeError("x"),
            OSError(5),
        ),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_whatever_a_parser_raises_is_one_named_line(fault):
    named = pytest.raises(DataError, match=r"^x\.npz is damaged \(.+\)$")
    with named as caught, parsing(DataError, "x.npz is damaged"):
        raise fault
    assert caught.value.__cause__ is fault
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("passes", [RunError("named"), KeyboardInterrupt(), SystemExit(1)])
def test_named_errors_and_what_ends_a_program_pass_a_parser(passes):
    with pytest.raises(type(passes)) as caught, parsing(DataError, "it is damaged"):
        raise passes
    assert caught.value is passes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1e999}', "a: a number is finite, got inf"),
        (b'{"a": [[NaN]]}', "a: a number is finite, got nan"),
        (b'{"a": -Infinity}', "a: a number is finite, got -inf"),
        (b'{"a": 9223372036854775808}', "a: a whole number is below 2^63"),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "it is nested more than 64 deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_json_has_numbers_and_depth_that_everything_can_take(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match=re.escape(f"it is not valid JSON ({message}")):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'{"a": ' + b"[" * 62 + b"]" * 62 + b"}")
    assert list(read_json(tmp_path / "a.json")) == ["a"]


LONG = ".".join("a" * 70)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 40_000) + " = 1",
        f"[{LONG}]",
        f"[[ {' . '.join('a' * 70)} ]]",
        "b = { " + ".".join(['"a b"'] * 70) + " = 1 }",
        f'b = ["""c"""", {{ {LONG} = 1 }}]',
        f"b = ['''c'''', {{ {LONG} = 1 }}]",
        f"b = 1 # it's\n{LONG} = 1",
    ],
)
def test_a_key_of_many_parts_is_refused_before_it_is_parsed(text):
    began = time.process_time()
    with pytest.raises(ConfigError, match="a key has at most 64 parts, got more"):
        files.parse_toml(text, ConfigError, "x.toml")
    assert time.process_time() - began < 2, "tomllib takes 36 s and 6 GB for the first of these"


@pytest.mark.parametrize(
    "text",
    [
        f"b = '{LONG}'",
        f'b = "{LONG}\\" {LONG}"',
        f'b = """\n{LONG}"" \\""" {LONG}"""',
        f"b = '''\n{LONG} = ['' \n'''",
        f"# {LONG}\nb = 1.5",
        "b = [" + "1.5, " * 100 + "]",
        "\n".join(f"a.b.c{n} = {n}.5" for n in range(100)),
        ".".join("a" * 60) + " = 1",
    ],
)
def test_dots_elsewhere_are_no_parts_of_a_key(text):
    assert files.parse_toml(text, ConfigError, "x.toml")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ['"""', "'''", '"', "'", '"\\', "#", "a", ".", " ", "[", "\n"])
def test_keys_are_counted_in_time_that_grows_as_the_text(piece):
    began = time.process_time()
    with contextlib.suppress(ConfigError):
        files.parse_toml(piece * (200_000 // len(piece)), ConfigError, "x.toml")
    assert time.process_time() - began < 3
