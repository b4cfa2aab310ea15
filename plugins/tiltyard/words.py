"""Words that sentences for people are made of. Pure."""

import difflib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNKNOWN = "unknown"
HINDCAST = "hindcast"
"""Who asks, and answers, in a hindcast: no person, and nobody can log in as it and approve."""
"""Stands in place of a name where nobody knows who it was. Nobody may approve what he could have asked for himself."""
Who = Callable[[str | None], str]
"""A name → what all names of that person have in common: `person`, or what a portfolio says (`Portfolio.who`)."""
MOST = 1_000_000
"""Evidence beyond which it is only told that it is more."""
NAMED = 5
"""So many of the things that a sentence names are spelled out in it."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def strength(evidence: float) -> str:
    """Evidence as it is told: beyond MOST its digits mean nothing to anybody."""
    return f"{evidence:,.0f}" if evidence <= MOST else f"more than {MOST:,}"


def listed(parts: Sequence[str], between: str = ", ") -> str:
    """The first NAMED parts, and how many more there are: `a, b, c, d, e and 7 more`."""
    more = len(parts) - NAMED
    return between.join(parts[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def clauses(parts: Sequence[str]) -> str:
    """Sentences as the clauses of one, without their ends; where there is but one, as it is: `a; b; c and 7 more`."""
    return parts[0] if len(parts) == 1 else listed([part.rstrip(" .") for part in parts], "; ")


def ended(sentence: str) -> str:
    """A sentence with the mark at its end: a question mark where its last clause asks what was meant."""
    return sentence + ("?" if sentence.rpartition("; ")[2].startswith("did you mean") else ".")


def shown(text: str) -> str:
    """A text of somebody's with signs in place of what nobody sees and a terminal, a mail or a reader obeys: control
    characters but for the ends of lines and tabs, halves of characters, and what turns the direction of writing."""
    return "".join(sign if sign in "\n\t" or not _acts(sign) else "\ufffd" for sign in text)


def line(text: str) -> str:
    """The same on one line, so that nothing of it can pass for another line of what it stands in."""
    return shown(" ".join(text.split()))


def markdown(text: str) -> str:
    """The same as Markdown that shows it as it is: no link, picture or tag of it acts."""
    return html.escape(re.sub(r"([\\`*\[\]])", r"\\\1", line(text)), quote=False)


def person(name: str | None) -> str:
    """What two spellings of one person's name have in common: neither case, nor blanks, nor how its letters are encoded
    make another person."""
    return unicodedata.normalize("NFKC", " ".join((name or "").split())).casefold()


def _acts(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs") or sign in _TURNING


def meant(name: str, names: Iterable[str]) -> str:
    """`; did you mean x`, the nearest of `names`; empty when none is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}" if close else ""
