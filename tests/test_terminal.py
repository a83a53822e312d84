"""The command line on a terminal and in a pipe: signals, closed streams, foreign letters."""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import DIGITS, TINY, train

from rowwise import cli, runs, terminal

PYTHON = [sys.executable, "-m", "rowwise"]
LONG = ("--set", "epochs=15")


class Process:
    """A real process, its stderr on a terminal or in a pipe."""

    def __init__(self, *arguments: object, on_terminal: bool) -> None:
        self._reading, writing = pty.openpty() if on_terminal else os.pipe()
        self._process = subprocess.Popen(
            [*PYTHON, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=writing,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "150", "OMP_NUM_THREADS": "1"},
        )
        os.close(writing)
        self.told = ""

    def read_until(self, word: str) -> float:
        """Read stderr until a word is there; when that was."""
        while word not in self.told:
            part = self._read()
            assert part, f"{word!r} never came: {self.told}"
        return time.monotonic()

    def send(self, number: int) -> float:
        """Send a signal; when that was."""
        self._process.send_signal(number)
        return time.monotonic()

    def end(self) -> tuple[int, str]:
        """Wait for the end; exit code and stdout."""
        out, _ = self._process.communicate(timeout=60)
        while self._read():
            pass
        os.close(self._reading)
        return self._process.returncode, out.decode()

    @property
    def plain(self) -> str:
        """What was told, without the terminal's escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.told)

    def _read(self) -> str:
        try:
            part = os.read(self._reading, 65536).decode("utf-8", "replace")
        except OSError:  # a terminal whose other end is closed
            part = ""
        self.told += part
        return part


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> runs.Run:
    """A run as the interrupted ones would have been."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(TINY)
    train(folder / "tiny.toml", *DIGITS, *LONG, "--out", folder)
    return runs.Run.open(folder / "tiny-s0")


def untimed(metrics):
    return [row._replace(train_s=0, val_s=0) for row in metrics]


@pytest.mark.parametrize(
    ("on_terminal", "number", "code"),
    [(True, signal.SIGINT, 130), (False, signal.SIGINT, 130), (False, signal.SIGTERM, 143)],
    ids=["ctrl-c", "SIGINT-in-a-pipe", "SIGTERM"],
)
def test_a_signal_is_answered_saved_and_made_good(
    on_terminal, number, code, tiny, uninterrupted, rowwise
):
    process = Process("train", tiny, *DIGITS, *LONG, on_terminal=on_terminal)
    process.read_until("Epoch 1/15 - ")
    sent = process.send(number)
    assert process.read_until("stopping: saving what is done ...") - sent < 0.5
    assert process.end() == (code, "")
    if on_terminal:
        assert re.search(r"Epoch \d+/15 .*━.* \d+/23 .*loss \d\.\d{4} .*ETA", process.plain)
        assert process.told.count("\x1b[?25l") == process.told.count("\x1b[?25h") > 0, "the cursor"
    else:
        assert "\x1b" not in process.told
    lines = process.plain.splitlines()
    assert re.search(r"interrupted in epoch \d+ of 15, step \d+ of 23; all", process.plain)
    assert lines[-1] == (
        "saved in runs/tiny-s0; go on with: rowwise train tiny.toml --dataset digits --threads 1 "
        "--set epochs=15 --resume"
    )
    again = rowwise(*shlex.split(lines[-1].partition("rowwise ")[2]))
    assert again.code == 0
    assert re.search(r"^going on at epoch \d+, step \d+$", again.err, re.MULTILINE)
    run = runs.Run.open("runs/tiny-s0")
    weights = uninterrupted.weights()
    assert all((weights[key] == value).all() for key, value in run.weights().items())
    assert untimed(run.metrics) == untimed(uninterrupted.metrics)


def test_the_command_that_goes_on_is_the_one_that_was_given():
    assert cli._again(["study", "my study.toml", "--no-resume", "--seeds", "2"]) == (
        "rowwise study 'my study.toml' --seeds 2 --resume"
    )
    assert cli._again(["train", "a.toml", "--resume"]) == "rowwise train a.toml --resume"


def test_plain_lines_in_a_pipe(tiny, rowwise):
    assert "\x1b" not in rowwise("train", tiny, *DIGITS, "--set", "epochs=1").err


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    left, written = [], []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(os, "write", lambda file, line: written.append(line))
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    switch = terminal.StopSwitch()
    before = signal.getsignal(signal.SIGTERM)
    with switch.installed():
        assert not switch()
        signal.raise_signal(signal.SIGTERM)
        assert switch()
        assert not left
        signal.raise_signal(signal.SIGINT)
    assert left == [143], "as the first signal wanted"
    assert written == [terminal.STOPPING, terminal.SHOW_CURSOR]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_closed_stderr_does_not_lose_the_training(monkeypatch):
    def broken(file, line):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    switch = terminal.StopSwitch()
    with switch.installed():
        signal.raise_signal(signal.SIGTERM)
    assert switch()


def test_ctrl_c_outside_of_a_training(rowwise, trained, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("rowwise.train.beliefs", interrupted)
    assert rowwise("evaluate", trained / "runs/tiny-s0") == (130, "", "rowwise: interrupted\n")


@pytest.mark.parametrize("arguments", [["runs", "runs"], ["runs", "runs", "--json"], ["--version"]])
def test_a_closed_pipe_is_left_in_silence(arguments, trained):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*PYTHON, *arguments],
        cwd=trained,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert process.returncode == 1
    assert process.stderr == b""


def test_a_terminal_without_our_letters_gets_others(tiny, home, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as left:
        cli.main(["train", str(tiny), "--dataset", "digits", "--summary"])
    assert left.value.code == 0
    assert b"\\u2502 lstm (LSTM)" in written.getvalue()


def test_a_place_that_cannot_be_written_is_one_line(tiny, rowwise):
    answer = rowwise("data", "--dataset", "digits", "--out", "tiny.toml/drawn", "--json")
    assert answer.code == 1
    assert answer.err == "rowwise: tiny.toml/drawn: Not a directory\n"
