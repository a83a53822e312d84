"""The command line: parse, one call, print. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import gc
import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn, TextIO, cast

import typer
from typer.exceptions import TyperException

from rowwise import exchange, options, recognition, serving, training
from rowwise._version import __version__
from rowwise.errors import RowwiseError, printable

app = typer.Typer(
    name="rowwise",
    help="Recurrent networks that read handwritten digits, one row at a time.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# How a file that is no longer, or never was, open for writing refuses; the error names none.
REFUSALS = (errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
INTERRUPTED = 130  # the exit code after Ctrl-C, as shells have it

app.command("study")(training.study)
app.command("train")(training.train)
app.command("evaluate")(training.evaluate)
app.command("runs")(training.list_runs)
app.command("report")(training.report)
app.command("predict")(recognition.predict)
app.command("models")(recognition.models)
app.command("serve")(serving.serve)
app.command("export")(exchange.export_run)
app.command("import")(exchange.import_model)
app.command("pack")(exchange.pack_run)
app.command("data")(training.data)


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """Say what this machine has: engines, models, data, extras.

    Where one is missing, it says why.
    """
    from rowwise import doctor as checks
    from rowwise import terminal

    found = checks.examine()
    if as_json:
        terminal.write_json([check._asdict() for check in found])
    else:
        checks.show(found)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rowwise {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Recurrent networks that read handwritten digits, one row at a time."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 with one line, 2 for wrong usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a terminal may lack letters
    try:
        code = app(given or ["--help"], standalone_mode=False, prog_name="rowwise")
        sys.stdout.flush()
        if code == INTERRUPTED:  # what Typer makes of a KeyboardInterrupt
            _fail("interrupted", code)
    except training.Stopped as stopped:
        code = stopped.code
        _to_stderr(f"saved in {stopped.folder}; go on with: {_again(given)}")
    except KeyboardInterrupt:
        code = _fail("interrupted", INTERRUPTED)
    except TyperException as error:
        told = error.format_message().removesuffix(".")
        code = _fail(f"{told}; see rowwise --help", error.exit_code)
    except RowwiseError as error:
        code = _fail(str(error), 1)
    except BrokenPipeError:  # who read our output wants no more of it
        code = 1
    except OSError as error:  # a full disk, a folder that may not be written
        stream = "cannot write to stdout: " if error.errno in REFUSALS else ""
        place = f"{error.filename}: " if error.filename else stream
        code = _fail(f"{place}{error.strerror or error}", 1)
    _drop_output()
    gc.freeze()  # else the interpreter looks through all that there is before it ends: 0.1 s
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Put something in the place of standard streams that are closed (`>&-`).

    Else the next file to be opened would take the place of stdout, and get what libraries print.
    Reading a closed stdin and writing to a closed stdout is an error; a closed stderr tells nobody.
    """
    for number, way in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, way), True)  # the lowest free one, so `number`
    sys.stdin = sys.stdin or _standard(0, "r", "<stdin>")
    sys.stdout = sys.stdout or _standard(1, "w", "<stdout>")
    sys.stderr = sys.stderr or _standard(2, "w", "<stderr>")


def _standard(number: int, mode: str, name: str) -> TextIO:
    stream = open(number, mode, buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    stream.buffer.raw.name = name  # type: ignore[attr-defined]
    return cast(TextIO, stream)


def _drop_output() -> None:
    """Drop what stdout and stderr did not take, else Python tries again as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _again(given: Sequence[str]) -> str:
    """The command that goes on with an interrupted one."""
    kept = [argument for argument in given if argument not in ("--no-resume", "--resume")]
    return shlex.join(["rowwise", *kept, "--resume"])


def _fail(line: str, code: int) -> int:
    _to_stderr(f"rowwise: {line}")
    return code


def _to_stderr(line: str) -> None:
    with suppress(OSError):  # nobody reads it any more: the exit code says it
        print(printable(line), file=sys.stderr)
