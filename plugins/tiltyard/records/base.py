"""What every record can do. A record is a frozen dataclass, cheap to make; only `from_json` checks.

The text under a field is its description in the record's JSON schema, so it is a noun, its unit, and what None means.

A record reads what older versions of this project wrote: what it does not know is passed over, what was not written
yet has a default, and what was called otherwise is known by its older name (`formerly`).
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from tiltyard.docstrings import of_attributes

JsonObject = dict[str, JsonValue]
"""What JSON calls an object."""

Instant = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant that JSON holds with its offset, like `2016-05-02T00:00:00+00:00`."""


def formerly(name: str, *, now: str) -> Any:
    """What annotates a field that older versions wrote under another name, as in
    `reason: Annotated[str, formerly("said", now="reason")]`. Of a body that holds both, its name now counts."""
    return Field(validation_alias=AliasChoices(now, name))


def unless_empty() -> Any:
    """What annotates a field that is not written where it is empty: nothing that was signed before it came changes."""
    return Field(exclude_if=lambda value: not value)


class Record:
    """Base of every record. Subclasses are `@dataclass(frozen=True)`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_inf_nan="constants",
        extra="ignore",
        validate_by_name=True,  # `from` is no name for a field in Python: it is the alias of one
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def to_json(self) -> JsonObject:
        """The record as JSON holds it: instants and dates as ISO texts, tuples as lists.

        JSON has no infinity and nothing that is no number: they become the largest float there is, and null. Raises
        ValueError for what is no number in a field that cannot be null, since nobody could read that back.
        """
        constants: list[str] = []
        body: JsonObject = json.loads(
            _adapter(type(self)).dump_json(self), parse_constant=lambda text: _finite(text, constants)
        )
        if "NaN" in constants:
            try:
                _adapter(type(self)).validate_python(body)
            except ValidationError as error:
                place = ".".join(str(part) for part in error.errors()[0]["loc"])
                raise ValueError(
                    f"{type(self).__name__}: {place} is not a number (NaN), and cannot be null; leave it out, or give "
                    "the field a None that says what it means."
                ) from None
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The record that `to_json`, of this version or an older one, has written. An infinity comes back as the
        largest float, of its sign: it compares like one, and what was signed keeps its digest.

        Raises pydantic.ValidationError, which is a ValueError, for what is none.
        """
        record: Self = _adapter(cls).validate_python(body)
        return record

    @classmethod
    def json_schema(cls) -> JsonObject:
        """JSON schema of what `to_json` writes, with the fields' descriptions."""
        schema: JsonObject = _adapter(cls).json_schema(mode="serialization")
        describe(cls.__name__, schema)
        return schema


_adapters: dict[type[Record], TypeAdapter[Any]] = {}


def _adapter(kind: type[Record]) -> TypeAdapter[Any]:
    """Built once per record, since building takes milliseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def describe(name: str, schema: dict[str, Any]) -> None:
    """Give every field the text that stands under it, in the record or in the one that it inherits it from.

    Pydantic could read these texts itself, but does so for every record that is read from JSON, at 35 ms a record.
    """
    for title, part in {name: schema, **schema.get("$defs", {})}.items():
        named = [kind for kind in _kinds(Record) if kind.__name__ == title]
        if not named:
            continue
        own = max(named, key=lambda kind: len(part.get("properties", {}).keys() & kind.__annotations__.keys()))
        bases = [base for base in own.__mro__ if issubclass(base, Record) and base is not Record]
        texts = {base: of_attributes(sys.modules[base.__module__]) for base in bases}
        for field, body in part.get("properties", {}).items():
            described = (texts[base].get((base.__name__, field)) for base in bases)
            if text := next(filter(None, described), None):
                body["description"] = text


def _kinds(base: type[Record]) -> Iterator[type[Record]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _finite(constant: str, constants: list[str]) -> float | None:
    """What stands in JSON for NaN, Infinity or -Infinity, which is added to `constants`."""
    constants.append(constant)
    return None if constant == "NaN" else math.copysign(sys.float_info.max, -1 if constant[0] == "-" else 1)
