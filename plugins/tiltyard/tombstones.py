"""Tombstones: of whom nothing is taken in any more, without saying who.

A tombstone is an HMAC-SHA256 of what is erased, with a key that lies in the home or comes from the environment. Whoever
has the ledger and not the key cannot find out by trying whose it is; whoever has a row can ask whether it is of one
that was erased. The ledger has them all; `home/erasure/tombstones.json` is a copy for those who must not wait for it,
the consumers of streams.

Method: Krawczyk, Bellare, Canetti (1997), HMAC: keyed-hashing for message authentication, RFC 2104.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.settings import Settings

ERASED: Final = "(erased)"
"""What stands where the text was that named one who was erased."""
_BYTES = 32
"""Bytes of a key that is made here."""


class Tombstones:
    """Of whom nothing is taken in any more, of every entity."""

    def __init__(self, key: bytes, hashes: Mapping[str, frozenset[str]]) -> None:
        self._key, self._hashes = key, hashes

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities of which any was erased."""
        return tuple(sorted(name for name, hashes in self._hashes.items() if hashes))

    def among(self, entity: str, values: Iterable[object]) -> set[str]:
        """Those of these values, as texts, that were erased."""
        hashes = self._hashes.get(entity)
        if not hashes:
            return set()
        return {
            text for value in values if value is not None and made(self._key, entity, text := normal(value)) in hashes
        }


def normal(value: object) -> str:
    """A value of a key as it is compared: as a text, without the spaces around it."""
    return str(value).strip()


def made(key: bytes, entity: str, value: str) -> str:
    """The tombstone of one, as hexadecimal digits."""
    return hmac.new(key, f"{entity}\0{normal(value)}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def mark(key: bytes) -> str:
    """What tells a key from another one without telling the key: it stands beside what was made with it."""
    return made(key, "", "tiltyard")[:16]


def folder(settings: Settings) -> Path:
    """Where key and copy lie."""
    return settings.home / "erasure"


def key_of(settings: Settings, *, make: bool = False) -> bytes:
    """The key: that of TILTYARD_ERASURE_KEY, or the one that lies in the home, where one is made the first time.

    Raises BadInput where there is none and none is to be made.
    """
    if settings.erasure_key is not None:
        return settings.erasure_key.get_secret_value().encode()
    path = folder(settings) / "key"
    if not path.is_file():
        if not make:
            raise BadInput(
                f"Somebody was erased here, and the key of the tombstones is gone: put {path} back, or set "
                "TILTYARD_ERASURE_KEY, so that nothing of them is taken in again."
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole(path, lasting=True) as part:
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
            part.write_text(secrets.token_hex(_BYTES))
    return path.read_bytes().strip()


def known(settings: Settings, hashes: Mapping[str, Collection[str]], marks: Collection[str]) -> Tombstones:
    """What the ledger has, for whoever takes rows in; a copy of it is kept for those without a ledger.

    `marks`: of the keys that they were made with. Raises BadInput where the key here is another one.
    """
    if not hashes:
        return Tombstones(b"", {})
    key = key_of(settings)
    if others := {*marks} - {mark(key)}:
        raise BadInput(
            f"The key of the tombstones here ({mark(key)}) is not the one that they were made with "
            f"({', '.join(sorted(others))}): nobody could be told from those who were erased. Put the right one into "
            f"{folder(settings) / 'key'}, or into TILTYARD_ERASURE_KEY."
        )
    body = {entity: sorted(own) for entity, own in sorted(hashes.items())}
    path = folder(settings) / "tombstones.json"
    content = json.dumps(body)
    if not path.is_file() or path.read_text() != content:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole(path) as part:
            part.write_text(content)
    return Tombstones(key, {entity: frozenset(own) for entity, own in hashes.items()})


def copied(settings: Settings) -> Tombstones:
    """What the copy in the home says, for whoever has no ledger."""
    path = folder(settings) / "tombstones.json"
    if not path.is_file():
        return Tombstones(b"", {})
    body = json.loads(path.read_text())
    return Tombstones(key_of(settings), {entity: frozenset(own) for entity, own in body.items()})
