"""Finding names in bytes and texts: of a thousand at once, each where it stands by itself. Pure.

A name stands by itself where no letter or digit comes before or after it: `C-17` is in `C-17.csv`, and not in `C-170`.
It is looked for as it is written, as JSON writes it, and as HTML does. A short number is told from no other number by
its bytes, so that it is looked for in columns alone (`is_telling`).
"""

import html
import json
import re
from collections.abc import Collection

from tiltyard.tombstones import ERASED

_WORD = re.compile(rb"[0-9A-Za-z]+")
SHORTEST = 8
"""Letters and digits from which on a name is told from others by its bytes; with a letter among them fewer do."""
SHORTEST_WITH_LETTER = 5


def is_telling(value: str) -> bool:
    """Whether a name, by its bytes alone, is hardly anything else."""
    signs = [sign for sign in value if sign.isalnum()]
    return len(signs) >= SHORTEST or (len(signs) >= SHORTEST_WITH_LETTER and any(sign.isalpha() for sign in signs))


class Needles:
    """Names that are looked for."""

    def __init__(self, values: Collection[str]) -> None:
        self.telling = frozenset(value for value in values if is_telling(value))
        """Those that are looked for."""
        self.short = frozenset(values) - self.telling
        """Those that are not."""
        self._by_word: dict[bytes, list[tuple[str, re.Pattern[bytes]]]] = {}
        self._single: dict[bytes, str] = {}
        """Name that is one word, as bytes → the name."""
        self._wordless: list[tuple[str, re.Pattern[bytes]]] = []
        self.longest = 0
        """Bytes of the longest form of any."""
        for value in self.telling:
            for form in {value, json.dumps(value)[1:-1], html.escape(value)}:
                content = form.encode("utf-8", "surrogatepass")
                self.longest = max(self.longest, len(content))
                pattern = re.compile(rb"(?<![0-9A-Za-z])" + re.escape(content) + rb"(?![0-9A-Za-z])")
                words = _WORD.findall(content)
                if words == [content]:
                    self._single[content] = value
                elif words:
                    self._by_word.setdefault(max(words, key=len), []).append((value, pattern))
                else:
                    self._wordless.append((value, pattern))

    def within(self, content: bytes) -> set[str]:
        """The names that stand in these bytes."""
        if not self.telling:
            return set()
        words = set(_WORD.findall(content))
        found = {self._single[word] for word in words & self._single.keys()}  # it is a word, so it stands by itself
        several = [pair for word in words & self._by_word.keys() for pair in self._by_word[word]] + self._wordless
        return found | {value for value, pattern in several if value not in found and pattern.search(content)}

    def struck(self, content: bytes, *, same_length: bool = False) -> bytes:
        """The bytes with ERASED in the place of every name; with `same_length` with stars."""

        def instead(match: re.Match[bytes]) -> bytes:
            return b"*" * len(match[0]) if same_length else ERASED.encode()

        words = set(_WORD.findall(content))
        if words & self._single.keys():
            content = _WORD.sub(lambda match: instead(match) if match[0] in self._single else match[0], content)
        several = [pair for word in words & self._by_word.keys() for pair in self._by_word[word]] + self._wordless
        for _, pattern in several:
            content = pattern.sub(instead, content)
        return content

    def struck_text(self, text: str) -> str:
        """A text with ERASED in the place of every name."""
        content = text.encode("utf-8", "surrogatepass")
        return self.struck(content).decode("utf-8", "surrogatepass")
