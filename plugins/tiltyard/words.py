"""Words that sentences for people are made of. Pure."""

import difflib
from collections.abc import Iterable, Sequence

NAMED = 5
"""So many of the things that a sentence names are spelled out in it."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(parts: Sequence[str], between: str = ", ") -> str:
    """The first NAMED parts, and how many more there are: `a, b, c, d, e and 7 more`."""
    more = len(parts) - NAMED
    return between.join(parts[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def ended(sentence: str) -> str:
    """A sentence with the mark at its end: a question mark where its last clause asks what was meant."""
    return sentence + ("?" if sentence.rpartition("; ")[2].startswith("did you mean") else ".")


def meant(name: str, names: Iterable[str]) -> str:
    """`; did you mean x`, the nearest of `names`; empty when none is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}" if close else ""
