"""Named exceptions; each message is one line: the rule, what was got, the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MAX_LINE = 2000  # characters of a message
MAX_SAID = 200  # of them, of one that is not ours


def printable(text: str) -> str:
    """Text of one line as a terminal may show it, whatever a file's name or a model's card holds.

    Control characters, escape sequences, marks of direction and bytes that are no UTF-8 are shown
    as Python escapes them (`\\x1b`); so are spaces that are none of the keyboard's.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class RowwiseError(Exception):
    """Base of every error that a user can cause or cure; `str(error)` is one printable line."""

    def __init__(self, message: str) -> None:
        line = printable(" ".join(message.split()))
        if len(line) > MAX_LINE:  # the rule stands at the beginning, the remedy at the end
            line = f"{line[: MAX_LINE - 503]}...{line[-500:]}"
        super().__init__(line)


class ConfigError(RowwiseError):
    """An experiment or study file, or a `--set` override, breaks a rule."""


class DataError(RowwiseError):
    """A data file is damaged, mislabelled, of the wrong shape or of an unknown format."""


class DataMissing(DataError):
    """No copy of a data set was found and none could be downloaded."""


class PictureError(RowwiseError):
    """A picture is damaged, of an unknown format, beyond the limits, or of no sensible range."""


class NetworkError(RowwiseError):
    """The layers of an experiment do not fit together, or weights do not fit the network."""


class EngineError(RowwiseError):
    """The engine that was asked for cannot run this network on this machine."""


class RunError(RowwiseError):
    """A run folder is missing, unfinished, foreign, damaged, in use, or cannot be written."""


class ModelError(RowwiseError):
    """A model is missing, damaged, foreign, or cannot do what is asked of it."""


class EstimatorError(RowwiseError, ValueError):
    """A parameter or the labels given to the scikit-learn estimator break a rule."""


class TrainingDiverged(RowwiseError):
    """The loss became NaN or infinite, or grew beyond recall."""


class BrokenExtra(RowwiseError):
    """An optional package is needed, installed, and cannot be imported."""


class MissingExtra(RowwiseError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package}, which is not installed; "
            f"install it with: pip install 'rowwise[{extra}]'"
        )
        self.package = package
        self.extra = extra


@contextmanager
def importing(package: str, extra: str, *, module: str = "") -> Iterator[None]:
    """Around the imports of an optional package, whose module is `module` or has its name.

    Raises MissingExtra where just that module is not there, and BrokenExtra where it is and its
    import fails: for want of memory, of a library or of a package that it needs itself.
    """
    try:
        yield
    except Exception as fault:
        if isinstance(fault, ModuleNotFoundError) and fault.name == (module or package):
            raise MissingExtra(package, extra) from fault
        raise BrokenExtra(
            f"this needs the package {package}, which is installed but cannot be imported "
            f"({said(fault)}); free memory, or install it again with: "
            f"pip install --force-reinstall 'rowwise[{extra}]'"
        ) from fault


def said(fault: BaseException) -> str:
    """What an exception of somebody else says, in one short line."""
    if isinstance(fault, MemoryError):
        return "it takes more memory than there is"
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    line = " ".join(str(fault).split())
    if not line or isinstance(fault, LookupError):
        line = f"{type(fault).__name__}: {line}".rstrip(": ")
    return line if len(line) <= MAX_SAID else line[: MAX_SAID - 3] + "..."
