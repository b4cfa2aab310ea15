"""Who reads a place: a connection as Airflow has it, by its name, or what the environment says.

No secret leaves this module but to the library that opens the place with it: a record does not show it, and what a
library says of an error is told without it.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from tiltyard.errors import BadInput

Lookup = Callable[[str], str | None]
"""Name of a connection → its text, as Airflow writes one, a URI or JSON; None where there is none of that name."""


@dataclass(frozen=True)
class Connection:
    """A connection, taken apart."""

    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    """What Airflow calls schema."""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show: the password and the values beside it, as they are and as an address spells them."""
        values = [value for value in (self.password, *self.extra.values()) if value and len(value) > 3]
        return tuple(spelled for value in values for spelled in {value, quote(value, safe=""), quote_plus(value)})


def from_environment(name: str) -> str | None:
    """The text of a connection in AIRFLOW_CONN_NAME, where Airflow itself looks first."""
    return os.environ.get(f"AIRFLOW_CONN_{name.upper()}")


def find(name: str | None, lookup: Lookup) -> Connection | None:
    """The connection of a name; None without one. Raises BadInput where there is none, or what there is is none."""
    if name is None:
        return None
    text = lookup(name)
    if not text:
        raise BadInput(
            f"There is no connection '{name}'; make one in Airflow (Admin, Connections), or set "
            f"AIRFLOW_CONN_{name.upper()} to its URI."
        )
    try:
        return _of_json(json.loads(text)) if text.lstrip().startswith("{") else _of_uri(text)
    except (AttributeError, TypeError, ValueError):  # what it says may be a piece of a password
        raise BadInput(
            f"The connection '{name}' is neither a URI nor JSON, as Airflow writes them; mend it there, or in "
            f"AIRFLOW_CONN_{name.upper()}."
        ) from None


def without(message: str, connection: Connection | None) -> str:
    """What a library says, without the secrets that it was given."""
    for secret in sorted(connection.secrets if connection else (), key=len, reverse=True):
        message = message.replace(secret, "…")
    return message


def _of_json(body: Mapping[str, object]) -> Connection:
    extra = body.get("extra") or {}
    if isinstance(extra, str):
        extra = json.loads(extra)
    assert isinstance(extra, dict)
    port = body.get("port")
    return Connection(
        _text(body.get("host")),
        int(str(port)) if port else None,
        _text(body.get("login")),
        _text(body.get("password")),
        _text(body.get("schema")),
        {str(name): str(value) for name, value in extra.items()},
    )


def _of_uri(text: str) -> Connection:
    parts = urlsplit(text)
    if not parts.scheme:
        raise ValueError("no scheme")
    extra = dict(parse_qsl(parts.query))
    if whole := extra.pop("__extra__", None):
        extra |= {str(name): str(value) for name, value in json.loads(whole).items()}
    return Connection(
        unquote(parts.hostname) if parts.hostname else None,
        parts.port,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        unquote(parts.path.lstrip("/")) or None,
        extra,
    )


def _text(value: object) -> str | None:
    return str(value) if value not in (None, "") else None
