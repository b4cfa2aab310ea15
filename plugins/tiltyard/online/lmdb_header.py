"""What the first two pages of an LMDB file say of it, read without LMDB and without taking anything for granted.

LMDB looks at these pages when it opens a file, and believes them: a flipped bit in them is an error of the system (a
map of more memory than there is), or another version's file. So whoever could not open a file looks here whether it is
damaged, which is mended by making it anew, or whether something is in the way.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import lmdb

from tiltyard.files import whole

_META = struct.Struct("=QHHI II QQ I HH5Q I HH5Q QQ".replace(" ", ""))
"""A page that LMDB 0.9 begins a file with: its number, padding, kind, bounds; magic, format; address, size of the map;
of the free pages and of the rows: size of a page, flags, depth, branches, leaves, overflows, entries, root; the last
page and the transaction."""
_META_PAGE, _MAGIC, _FORMAT = 0x08, 0xBEEFC0DE, 1
"""The kind of such a page, what it begins with, and the format of LMDB 0.9."""
_SIZES = [2**power for power in range(8, 16)]
"""A page's size, in bytes."""

_VERSION = "version"
"""The file beside the store that says which LMDB opened it."""
_OURS = "LMDB {}.{}".format(*lmdb.version()[:2])
"""LMDB's versions share a format as long as these two numbers are the same."""


def note_version(folder: Path) -> None:
    """Keep, beside a store that was opened, by which LMDB. A folder that takes no file goes without."""
    with suppress(OSError):
        if not is_ours(folder):
            with whole(folder / _VERSION) as part:
                part.write_text(f"{_OURS}\n")


def is_ours(folder: Path) -> bool:
    """Whether the note says that an LMDB of this version opened the store; False without a note."""
    try:
        return (folder / _VERSION).read_text(errors="replace").strip() == _OURS
    except OSError:
        return False


class Header(NamedTuple):
    """What a file begins with."""

    size: int
    """Bytes of the file."""
    first: bytes
    """Of its first page, the part that is the header; fewer bytes where the file ends before."""
    second: bytes
    """Of its second page; empty where the first does not say how long a page is."""

    @property
    def fault(self) -> str | None:
        """What in it cannot be of the format that is installed, in words; None for nothing. Another format has faults,
        too."""
        page = self._page_bytes
        if page not in _SIZES:
            return f"its header speaks of pages of {page} bytes"
        return _fault(self.first, 0, page, self.size) or _fault(self.second, 1, page, self.size)

    @property
    def is_foreign(self) -> bool:
        """Whether both pages speak of one other format: damage to one page makes no file another version's."""
        forms = {_META.unpack(content)[5] for content in (self.first, self.second) if len(content) == _META.size}
        return len(forms) == 1 and forms != {_FORMAT}

    @property
    def _page_bytes(self) -> int:
        return int(_META.unpack(self.first)[8]) if len(self.first) == _META.size else 0


def read(data: Path) -> Header | None:
    """The header of a file; None for one that is empty or cannot be read."""
    try:
        with data.open("rb") as file:
            header = Header(file.seek(0, os.SEEK_END), os.pread(file.fileno(), _META.size, 0), b"")
            if header._page_bytes in _SIZES:
                header = header._replace(second=os.pread(file.fileno(), _META.size, header._page_bytes))
    except OSError:
        return None
    return header if header.size else None


def _fault(content: bytes, number: int, page: int, size: int) -> str | None:
    """What is wrong with one of the two pages of a file of `size` bytes."""
    if len(content) < _META.size:
        return "it ends in its header"
    own_number, _, kind, _, magic, form, _, _, page_here, *_, last, _ = _META.unpack(content)
    if (own_number, kind, magic) != (number, _META_PAGE, _MAGIC):
        return f"page {number} of it is no header"
    if form != _FORMAT:
        return f"its header speaks of format {form}"
    if page_here != page:
        return f"its header speaks of pages of {page} and of {page_here} bytes"
    return short(last, page, size)


def short(last: int, page: int, size: int) -> str | None:
    """Whether a file of `size` bytes ends before its `last` page, in words; None: it does not.

    LMDB writes a page before it counts it, so that a file that is whole never does.
    """
    if (last + 1) * page > size:
        return f"its header speaks of {(last + 1) * page:,} bytes, and it has {size:,}"
    return None
