"""Secrets are taken out of every text before anybody reads it: errors, logs and tracebacks, where they leave a process.

What is secret is told by the environment, the one place that secrets come from: variables that are called like one, and
passwords in addresses or behind `password=`. Each is looked for as it stands there, and as JSON, Python, SQL and an
address spell it. A driver may quote a password that came from elsewhere, so that what stands behind `password=` or in
an address goes as well.
"""

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from urllib.parse import quote, quote_plus, unquote, unquote_plus

STARS = "***"
"""Stands where a secret stood."""
SHORTEST = 6
"""Characters from which on a value is looked for wherever it stands: a shorter one is part of too many words."""

_CALLED = re.compile(
    r"(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|PASSPHRASE|(?<![A-Z0-9])KEYS?|API_?KEYS?)(_|$)", re.IGNORECASE
)
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:'\"]*:)([^\s'\"]+)(@)", re.IGNORECASE)
_ONE_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://[^\s/@:]*:(.+)@[^@]*", re.IGNORECASE | re.DOTALL)
"""A value that is one address: its password may hold what would end one in the middle of a sentence."""
EXAMPLES = frozenset({"secret", "password", "pw", STARS})
"""What stands in the place of a password where a sentence shows how an address is written."""
_ASSIGNED = re.compile(
    r"((?:password|passwd|passphrase|secret|secret_access_key|session_token)(?:\s*=\s*|['\"]\s*:\s*))"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\",;)&]+)",
    re.IGNORECASE,
)


def secrets(environment: Mapping[str, str]) -> frozenset[str]:
    """The values in an environment that nobody may read."""
    found = {value for name, value in environment.items() if _CALLED.search(name)}
    for value in environment.values():
        if "://" in value:
            found |= {match[2] for match in _ADDRESS.finditer(value)}
            found |= {match[1] for match in [_ONE_ADDRESS.fullmatch(value)] if match}
        if "=" in value:
            found |= {match[2].strip("'\"") for match in _ASSIGNED.finditer(value)}
    found |= {unquote(value) for value in found}
    return frozenset(value.strip() for value in found if len(value.strip()) >= SHORTEST) - EXAMPLES


def spellings(secret: str) -> frozenset[str]:
    """How a secret may stand in a text: as it is, each of its lines, and as JSON, Python, SQL or an address has it."""
    values = {secret, *(line.strip() for line in secret.splitlines())}
    spelled = set(values)
    for value in values:
        spelled |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
        spelled |= {ascii(value)[1:-1], value.replace("'", "''"), value.replace("'", "\\'")}
        spelled |= {quote(value, safe=""), quote(value), quote_plus(value), unquote_plus(value)}
    return frozenset(value for value in spelled if len(value) >= SHORTEST)


def redacted(text: str) -> str:
    """The text without secrets."""
    text = _ADDRESS.sub(lambda found: found[0] if found[2] in EXAMPLES else f"{found[1]}{STARS}{found[3]}", text)
    text = _ASSIGNED.sub(rf"\1{STARS}", text)
    return _any_of(secrets(os.environ)).sub(STARS, text)


@lru_cache(maxsize=4)
def _any_of(values: frozenset[str]) -> re.Pattern[str]:
    """What fits any of them, however it is spelled, the longest first; nothing where there are none."""
    spelled = {spelling for value in values for spelling in spellings(value)}
    return re.compile("|".join(map(re.escape, sorted(spelled, key=lambda value: (-len(value), value)))) or r"(?!)")


def install() -> None:
    """Have all that this process logs, and what it ends with, redacted. Twice is once."""
    sys.excepthook = _end
    threading.excepthook = lambda hook: _end(hook.exc_type, hook.exc_value, hook.exc_traceback)
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def made(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _redact(record)
        return record

    made.redacts = True  # type: ignore[attr-defined]  # a function's own mark, so that nobody wraps it twice
    logging.setLogRecordFactory(made)


def _redact(record: logging.LogRecord) -> None:
    said = _said(record)
    if said is None or redacted(said) != said:
        _redact_parts(record)
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info))).rstrip()


def _redact_parts(record: logging.LogRecord) -> None:
    if isinstance(record.msg, str) and not record.args:
        record.msg = redacted(record.msg)
    if isinstance(record.args, tuple):  # each for itself: some formatters take them apart
        record.args = tuple(redacted(value) if isinstance(value, str) else value for value in record.args)
    said = _said(record)
    if (
        said is not None and (safe := redacted(said)) != said
    ):  # it stands in the words around them, or in one that is no text
        record.msg, record.args = safe, ()


def _said(record: logging.LogRecord) -> str | None:
    """What a record says; None where its arguments do not fit, which whoever prints it will say."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return None


def _end(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
