"""The errors a person meets. Each message is one sentence that says what to do.

`exit_code` is what the command line ends with: 2 for bad input, 1 for a check that failed. What a message quotes may be
anything that somebody has written: it is shown on one line, without secrets and what a terminal would obey, and cut
where it has no end.
"""

import re

from tiltyard.redaction import redacted

LONGEST_WORD, LONGEST = 1_000, 4_000
"""Characters of a word, and of a whole message, beyond which the rest is left out."""
_LINE_ENDS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_ENDLESS = re.compile(rf"[^\s.?)]{{{LONGEST_WORD},}}")


def shown(message: str) -> str:
    """A message as a person is shown it."""
    line = _LINE_ENDS.sub(" ", redacted(message.strip()))
    if not line.isprintable():
        line = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in line
        )
    line = _ENDLESS.sub(lambda word: f"{word[0][: LONGEST_WORD // 2]}…", line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]}…."


class TiltyardError(Exception):
    """Base of every error that is reported without a traceback."""

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


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
