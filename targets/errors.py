"""What can go wrong for a user, each with the exit code that a script can rely on."""

from collections.abc import Iterable
from difflib import get_close_matches


class EdgepressError(Exception):
    """A problem that its reader can do something about: printed as one message, without a traceback."""

    exit_code = 5


class RecipeError(EdgepressError):
    """The recipe, the arguments or the files that they name are wrong."""

    exit_code = 2


class RuntimeMissingError(EdgepressError):
    """A runtime that the target needs is not installed, or is installed and broken."""

    exit_code = 3


class StageError(EdgepressError):
    """A stage was well described and still could not be done."""

    exit_code = 5


class UnfitError(StageError):
    """This model cannot go through the stage, and nothing that the user wrote is wrong: the run goes on without it."""


class DeviceError(StageError):
    """A board cannot be reached, or does not do what it was asked to."""


class UnreachableError(DeviceError):
    """No connection to a board comes about: it is off, starting, or elsewhere."""


class LostConnectionError(DeviceError):
    """The connection to a board broke; trying again can help."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'prune'?` for a near miss, else the whole list."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"
