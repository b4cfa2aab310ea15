"""Header fields as HTTP means them (RFC 9110): what is compared without regard to case, and what stands beside it."""

import re
from typing import NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?')
_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_UTF_8 = {"utf-8", "utf8", "us-ascii", "ascii"}
"""Names of UTF-8 and of the part of it that is ASCII."""
_DIGITS = 18
"""Digits of the largest length that is read as a number; Python refuses to read one of thousands."""


class MediaType(NamedTuple):
    """A media type, or a range of them, without regard to case (RFC 9110, section 8.3.1)."""

    name: str
    """Type and subtype in lower case, like `application/json`."""
    parameters: dict[str, str]
    """Name in lower case → value as it stands, without quotes."""

    @property
    def charset(self) -> str | None:
        """Name of the encoding in lower case; None where the type does not say it."""
        return self.parameters["charset"].lower() if "charset" in self.parameters else None

    @property
    def is_json(self) -> bool:
        """Is it `application/json`?"""
        return self.name == "application/json"

    @property
    def is_utf_8(self) -> bool:
        """Can its text be read as UTF-8, which is what JSON is in where nothing is said?"""
        return self.charset is None or self.charset in _UTF_8


def media_type(field: str) -> MediaType | None:
    """The media type that a field like Content-Type holds. None for what is no media type."""
    field = field.strip(" \t")
    match = _TYPE.match(field)
    if match is None:
        return None
    place, parameters = match.end(), {}
    while place < len(field):
        following = _PARAMETER.match(field, place)
        if following is None:
            return None
        name, token, quoted = following.groups()
        if name is not None:
            parameters[name.lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        place = following.end()
    return MediaType(match[0].lower(), parameters)


def accepts(field: str, name: str) -> bool:
    """Whether an Accept field names this media type itself, with a weight above 0 (RFC 9110, section 12.5.1).

    Ranges like `*/*` name none: who takes anything has not asked for this one.
    """
    for part in _RANGE.findall(field):
        media = media_type(part)
        if media is not None and media.name == name:
            weight = media.parameters.get("q", "1")
            return re.fullmatch(r"0(\.0{0,3})?", weight) is None
    return False


def is_longer(field: bytes, most: int) -> bool:
    """Whether a Content-Length field says more than `most` bytes. A field that is no number says nothing."""
    if not field.isdigit():
        return False
    digits = field.lstrip(b"0")
    return len(digits) > _DIGITS or int(digits or b"0") > most
