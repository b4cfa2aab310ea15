"""The errors a person meets. Each message is one sentence that says what to do.

`exit_code` is what the command line ends with: 2 for bad input, 1 for a check that failed.
"""


class TiltyardError(Exception):
    """Base of every error that is reported without a traceback."""

    exit_code = 2


class BadInput(TiltyardError):
    """The user gave something that cannot be used: a spec, a date, a file, a name."""


class Unavailable(TiltyardError):
    """Something outside (a port, a database, a download) cannot be had right now."""


class CheckFailed(TiltyardError):
    """A critical check does not let something through; what was in service stays in service."""

    exit_code = 1


class Stopped(CheckFailed):
    """A critical check stopped a stage of one model; `facts` is what the stage's record says beside the reason."""

    def __init__(self, reason: str, **facts: object) -> None:
        super().__init__(reason)
        self.facts = facts


class OutOfTime(TiltyardError):
    """A stage of one model has taken longer than it may."""

    exit_code = 1


class Fenced(TiltyardError):
    """A newer attempt at the same work holds the fencing token; this one may not commit."""

    exit_code = 1
