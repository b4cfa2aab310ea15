"""Words that sentences for people are made of. Pure."""

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ended(sentence: str) -> str:
    """A sentence with the mark at its end: a question mark where its last clause asks what was meant."""
    return sentence + ("?" if sentence.rpartition("; ")[2].startswith("did you mean") else ".")


def meant(name: str, names: Iterable[str]) -> str:
    """`; did you mean x`, the nearest of `names`; empty when none is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}" if close else ""
