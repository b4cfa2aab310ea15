"""What the parts hand each other: frozen records with named fields, which JSON and PostgreSQL give back as they were.

A record is a frozen dataclass, cheap to make; only `from_json` checks. The text under a field is its description in
the record's JSON schema, so it is a noun, its unit, and what None means.

A record reads what older versions of this project wrote: what it does not know is passed over, what was not written
yet has a default, and what was called otherwise is put right in `upgraded`.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, JsonValue, TypeAdapter

JsonObject = dict[str, JsonValue]
"""What JSON calls an object."""


class Record:
    """Base of every record. Subclasses are `@dataclass(frozen=True, kw_only=True)`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        use_attribute_docstrings=True, ser_json_inf_nan="null", extra="ignore"
    )

    def to_json(self) -> JsonObject:
        """The record as JSON holds it: instants and dates as ISO texts, tuples as lists, NaN as null."""
        body: JsonObject = json.loads(_adapter(type(self)).dump_json(self, by_alias=True))
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The record that `to_json`, of this version or an older one, has written.

        Raises pydantic.ValidationError for what is none.
        """
        record: Self = _adapter(cls).validate_python(cls.upgraded(dict(body)), by_alias=True, by_name=True)
        return record

    @classmethod
    def upgraded(cls, body: JsonObject) -> JsonObject:
        """`body`, written by any version, under the names of this one. Overridden where a name has changed."""
        return body

    @classmethod
    def json_schema(cls) -> JsonObject:
        """JSON schema of what `to_json` writes, with the fields' descriptions."""
        schema: JsonObject = _adapter(cls).json_schema(mode="serialization")
        return schema


_adapters: dict[type[Record], TypeAdapter[Any]] = {}


def _adapter(kind: type[Record]) -> TypeAdapter[Any]:
    """Built once per record, since building takes milliseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
