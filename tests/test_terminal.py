"""The command line on a terminal and in a pipe: signals, closed streams, foreign letters."""

from __future__ import annotations

import ast
import io
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DIGITS, TINY, train

from rowwise import cli, export, runs, terminal

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


def test_few_files_print_and_these_escape_what_a_terminal_might_obey():
    package = Path(terminal.__file__).parent
    printing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert printing == {"cli.py", "readings.py", "terminal.py", "server/process.py"}


# --- streams that are closed ------------------------------------------------------------------

FAMILIES = {
    "predict": ["predict", "none.png"],
    "models": ["models", "--json"],
    "runs": ["runs", "runs"],
    "evaluate": ["evaluate", "runs/tiny-s0"],
    "data": ["data", "--dataset", "digits", "--json"],
    "train": ["train", "tiny.toml", *DIGITS, "--set", "epochs=1", "--out", "elsewhere"],
    "export": ["export", "runs/tiny-s0"],
    "report": ["report", "runs"],
    "doctor": ["doctor"],
    "help": ["--help"],
}
QUICK = ("predict", "runs", "help")  # the others in `make soak`


def closed(numbers: str, arguments: list[str], folder) -> subprocess.CompletedProcess[str]:
    """A command that starts without these of the standard streams, as `>&-` has it."""
    closing = " ".join({"0": "<&-", "1": ">&-", "2": "2>&-"}[n] for n in numbers)
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *PYTHON, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def families(test):
    marks = [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES
    ]
    return pytest.mark.parametrize("family", marks)(test)


@families
def test_a_closed_stdout_is_one_line(family, work):
    made = closed("1", FAMILIES[family], work)
    assert (made.returncode, made.stdout) == (1, "")
    last = made.stderr.splitlines()[-1]
    assert last == "rowwise: cannot write to stdout: Bad file descriptor"
    assert "Traceback" not in made.stderr
    assert (work / "elsewhere/tiny-s0/weights.safetensors").exists() == (family == "train")


@families
def test_a_closed_stderr_and_stdin_take_nothing_from_the_result(family, work):
    made = closed("02", FAMILIES[family], work)
    assert made.returncode == (1 if family == "predict" else 0)
    assert made.stdout
    assert made.stderr == ""


def test_with_all_streams_closed_the_exit_code_is_left(work):
    assert closed("012", ["runs", "runs"], work).returncode == 1


def test_a_closed_stdin_is_a_picture_that_cannot_be_read(work):
    made = closed("0", ["predict", "-"], work)
    assert made.returncode == 1
    assert made.stdout.startswith("<stdin>\t–\t–\tfailed\tcannot be read: ")
    assert made.stderr == "rowwise: the picture could not be read; the result says why\n"


def test_what_libraries_print_gets_into_no_file_that_took_the_place_of_a_stream(work):
    code = "from rowwise import cli; cli._open_streams(); f = open('kept', 'w'); import os;"
    code += "[os.write(n, b'x') for n in (2,)]; assert f.fileno() > 2; f.write('own')"
    made = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code],
        cwd=work,
        check=False,
    )
    assert made.returncode == 0
    assert (work / "kept").read_text() == "own"


def test_a_full_disk_is_one_line(work):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        made = subprocess.run(
            [*PYTHON, "runs", "runs"], cwd=work, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert made.returncode == 1
    assert made.stderr == b"rowwise: cannot write to stdout: No space left on device\n"


def test_a_result_and_an_error_that_nobody_reads_are_left_in_silence(work):
    reading, writing = os.pipe()
    os.close(reading)
    made = subprocess.run(
        [*PYTHON, "predict", "none.png"], cwd=work, stdout=writing, stderr=writing, check=False
    )
    os.close(writing)
    assert made.returncode == 1


# --- outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("export", "runs/tiny-s0", "--out"), "runs/tiny-s0/weights.safetensors"),
        (("export", "runs/tiny-s0", "--to", "keras", "--out"), "link.keras"),
        (("pack", "runs/tiny-s0", "--out"), "runs/tiny-s0/run.json"),
        (("pack", "runs/tiny-s0", "--data", "digits.csv", "--out"), "digits.csv"),
        (("report", "runs", "--out"), "runs/tiny-s1/predictions.csv"),
        (("report", "runs/tiny-s0", "--out"), "runs/tiny-s0/metrics.jsonl"),
        (("data", "drawn", "--out"), "drawn"),
    ],
)
def test_no_output_overwrites_an_input(arguments, given, work, rowwise, monkeypatch):
    monkeypatch.chdir(work)
    (work / "link.keras").symlink_to("runs/tiny-s0/experiment.json")
    (work / "digits.csv").write_text("label,pixel0\n")
    (work / "drawn/0").mkdir(parents=True)
    (work / "drawn/0/digit.png").write_bytes(b"a picture")
    (work / "drawn/samples.png").hardlink_to(work / "drawn/0/digit.png")
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    told = rowwise(*arguments, given)
    assert (told.code, told.out) == (1, "")
    assert re.fullmatch(
        rf"rowwise: {given}\S*: an output overwrites no input, .*; name another file\n", told.err
    )
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_an_earlier_output_is_written_anew(work):
    run = runs.Run.open(work / "runs/tiny-s0")
    out = run.folder / "tiny.keras"
    out.write_bytes(b"an earlier one")
    assert export._place(run, out, "keras") == out
