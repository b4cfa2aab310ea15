"""A request as it comes in: read row by row, checked, and refused with a sentence that says what to mend.

This is done by hand and not by a schema, since it is half of what an answer costs, and since people read the sentences.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from tiltyard.online.lookup import iso
from tiltyard.online.store import Value
from tiltyard.serve import fallback
from tiltyard.serve.servable import Servable

AHEAD_S = 60.0
"""Seconds by which a prediction time may lie ahead of the service's clock."""
TEXT = 1_000
"""Characters of the longest text that a feature, a key or an entity may be."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ROW = {"entity_id", "keys", "features", "prediction_time"}
"""Fields of a row."""
_BODY = {"rows", "request_id"}
"""Fields of a request."""
_KINDS = {"numeric": "a finite number", "boolean": "true or false"}
"""Kind of a feature → what its values are."""


class Rejected(Exception):
    """A request that cannot be answered: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class IncomingRow:
    """One row of a request, checked: what it speaks for, and what is known of it."""

    entity_id: str | None
    """Key of the model's entity; None where the request does not say it."""
    keys: dict[str, str]
    """Key column → key, for looking features up."""
    given: dict[str, Value]
    """Feature → value, as the caller gave it."""
    at: float
    """Prediction time, epoch seconds."""
    values: dict[str, Value]
    """Feature → value, looked up or given: what the caller gave wins."""
    views: dict[str, list[str] | None]
    """Feature view → [key, event_time, available_at] of the row that was looked up; None where there was none."""
    stale: Collection[str]
    """Features that the store has, but too old to be served."""
    is_store_away: bool
    """Whether the store of features did not answer."""

    def lacks(self, features: frozenset[str]) -> fallback.TierOutcome | None:
        """Why a version with these features may not score the row. None: all of them are known, be it as a null."""
        if features <= self.values.keys():
            return None
        if self.is_store_away:
            return "store_unavailable"
        unknown = features.difference(self.values)
        return "features_missing" if unknown.isdisjoint(self.stale) else "features_stale"


def parsed(body: bytes) -> dict[str, object]:
    """The JSON object that the body is. Raises Rejected for anything else."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"The body is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise Rejected(422, 'The body is an object like {"rows": [{"entity_id": "…"}]}.')
    return content


def rows_of(
    content: dict[str, object], servable: Servable, now: float, most: int
) -> tuple[list[IncomingRow], str | None]:
    """The rows of a request, checked, and its id (None: the caller gave none). `now` is in epoch seconds.

    Raises Rejected for what has to be mended, and for more than `most` rows.
    """
    if not content.keys() <= _BODY:
        raise Rejected(422, f"Unknown field '{_shown(content.keys() - _BODY)}'; a request has rows and request_id.")
    request_id = content.get("request_id")
    if request_id is not None and (not isinstance(request_id, str) or not _ID.fullmatch(request_id)):
        raise Rejected(422, "request_id is 1 to 128 letters, digits and . _ : -")
    rows = content.get("rows")
    if not isinstance(rows, list) or not rows:
        raise Rejected(422, "rows is a list of at least one row.")
    if len(rows) > most:
        raise Rejected(413, f"{len(rows)} rows are more than {most}; send them in several requests.")
    return [_row(number, row, servable, now) for number, row in enumerate(rows)], request_id


def _row(number: int, content: object, servable: Servable, now: float) -> IncomingRow:
    if not isinstance(content, dict):
        raise Rejected(422, f"rows[{number}] is an object with entity_id, keys, features or prediction_time.")
    if not content.keys() <= _ROW:
        unknown = _shown(content.keys() - _ROW)
        raise Rejected(422, f"rows[{number}] has an unknown field '{unknown}'; features go under features.")
    entity_id = content.get("entity_id")
    if entity_id is not None and not _is_text(entity_id):
        raise Rejected(422, f"rows[{number}].entity_id is text of 1 to {TEXT} characters.")
    key, by_column = servable.spec.key, content.get("keys")
    keys = {} if by_column is None else _checked_keys(number, by_column, servable)
    if entity_id is not None:
        if keys.get(key, entity_id) != entity_id:
            raise Rejected(422, f"rows[{number}] names two entities: entity_id and keys.{key} differ.")
        keys = {**keys, key: entity_id}
    entity_id = keys.get(key)
    features = content.get("features")
    if features is None:
        features = {}
    if not isinstance(features, dict):
        raise Rejected(422, f"rows[{number}].features maps features to values.")
    kinds = servable.kinds
    for name, value in features.items():
        kind = kinds.get(name)
        if kind is None and kinds:
            raise Rejected(422, f"rows[{number}].features has '{name[:60]}', which {servable.spec.name} does not know.")
        if value is not None and not _is_of(value, kind):
            values = _KINDS.get(kind or "", f"text up to {TEXT} characters")
            raise Rejected(422, f"rows[{number}].features.{name[:60]} is {values}, or null where it is not known.")
    at = _instant(content.get("prediction_time"), number, now)
    return IncomingRow(entity_id, keys, features, at, {}, {}, (), False)


def _checked_keys(number: int, keys: object, servable: Servable) -> dict[str, str]:
    if not isinstance(keys, dict) or not all(_is_text(value) for value in keys.values()):
        raise Rejected(422, f"rows[{number}].keys maps key columns to text of 1 to {TEXT} characters.")
    if not keys.keys() <= servable.keys:
        columns = ", ".join(sorted(servable.keys))
        unknown = _shown(keys.keys() - servable.keys)
        raise Rejected(422, f"rows[{number}].keys has '{unknown}'; the keys are {columns}.")
    return keys


def _instant(text: object, number: int, now: float) -> float:
    """Epoch seconds of a prediction time; `now` where none is given."""
    if text is None:
        return now
    try:
        if not isinstance(text, str):
            raise TypeError("no text")
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError("no zone")
        at = instant.astimezone(UTC).timestamp()  # overflows for the first hours of the year 1 east of Greenwich
    except (TypeError, ValueError, OverflowError):
        raise Rejected(
            422, f"rows[{number}].prediction_time is an instant with a zone, like 2016-04-02T06:00:00Z."
        ) from None
    if at > now + AHEAD_S:
        raise Rejected(
            422,
            f"rows[{number}].prediction_time lies {at - now:.0f} s in the future of this service, whose clock says "
            f"{iso(now)}; check the caller's clock.",
        )
    return at


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TEXT


def _is_of(value: object, kind: str | None) -> bool:
    """Whether a feature of this kind may have the value. None: the kind is not known."""
    if kind == "numeric":
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf")
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "categorical":
        return isinstance(value, str) and len(value) <= TEXT
    return isinstance(value, int | float | bool | str)


def _shown(names: Collection[str]) -> str:
    """The first of the names, as far as a sentence has room for it."""
    return str(min(names, key=str))[:60]
