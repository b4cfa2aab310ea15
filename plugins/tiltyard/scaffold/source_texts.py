"""The files of a source, as text: its contract, and the staging table with its `.yml`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath

from tiltyard import clock
from tiltyard.prepare.dbt_files import apart, literally
from tiltyard.prepare.places import Fetch
from tiltyard.scaffold import naming
from tiltyard.scaffold.found import Column, Findings
from tiltyard.scaffold.yaml_text import columns, mapping, model, prose, scalar

LONGEST_VALUE = 40
"""Letters of a value that a description shows."""
WRITTEN_AT = "written_at"
"""The column in which a cut, and from then on the source, says when a row was written; with a number behind it where
a file has such a column of its own."""


@dataclass(frozen=True)
class SourcePlan:
    """What is written of a source, by name."""

    source: str
    table: str
    """Name of its table, and of its folder in the landing zone."""
    found: Findings
    key: str
    """The column that names a row, as a plain name that ends in _id."""
    is_numbered: bool
    """Nothing in the file names a row: the cut numbers them."""
    available_at: str
    """The column that tells when a row was known; `ingested_at`: none does."""
    written_after: timedelta | None = None
    """How long after its row what nothing dates is known; None: all is dated."""
    place: Fetch | None = None
    """Where its rows are fetched from; None: somebody delivers them."""

    @property
    def staging(self) -> str:
        """Name of the staging table."""
        return f"stg_{self.source}__{self.table}"

    @property
    def happened(self) -> Column:
        """The time that tells when a row happened, of one column or made of several."""
        own = self.found.table.column(self.found.roles.event_time)
        assert own is not None
        return own if own.parts else self._named(own)

    @property
    def written_at(self) -> str | None:
        """The column that the cut adds, and says there when a row was written; None: it adds none."""
        own = {column.name for column in self.found.table.columns}
        return None if self.available_at in {"ingested_at", *own} else self.available_at

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a delivery."""
        added = []
        if self.is_numbered:
            header = self.key
            added.append(Column(header, self.key, "bigint", "whole"))
        kept = [self._named(column) for column in self.found.table.columns if not column.parts]
        if self.written_at is not None:
            kept.append(Column(self.written_at, self.written_at, "timestamptz", "instant", is_zoned=True))
        return (*added, *kept)

    def _named(self, column: Column) -> Column:
        """A column as the contract has it: the key by its name as one, and a number that names somebody as text."""
        roles = self.found.roles
        if column.name == roles.key:
            column = replace(column, name=self.key)
        if column.kind == "number" and column.name in (*roles.identifies, self.key):
            column = replace(column, data_type="varchar", kind="text")
        return column


def plan(source: str, table: str, found: Findings, available_at: str | None = None) -> SourcePlan:
    """What is written of a source. `available_at`: `ingested_at`; None: as its columns ask for it.

    A day tells when a row was known to the day only, and stands for its end: the cut writes that down."""
    roles = found.roles
    known = found.table.column(roles.available_at) if roles.available_at else None
    added = naming.free(WRITTEN_AT, [column.name for column in found.table.columns])
    is_split = bool(roles.written_later) and not roles.has_versions
    own = added if is_split or known is None or known.kind == "day" else known.name
    chosen = available_at or own
    row = naming.one_of(table)
    key = roles.key or row
    key = key if key.endswith("_id") else f"{row}_id"
    if any(column.name == key != roles.key for column in found.table.columns):
        key = f"{row}_row_id"
    return SourcePlan(source, table, found, key, roles.key is None, chosen)


def texts(planned: SourcePlan) -> dict[PurePosixPath, str]:
    """Path below the checkout → what stands there."""
    folder = PurePosixPath("dbt/models/staging") / planned.source
    return {
        folder / f"_{planned.source}__sources.yml": contract(planned),
        folder / f"{planned.staging}.sql": staging_sql(planned),
        folder / f"{planned.staging}.yml": staging_yml(planned),
    }


# -- the contract -----------------------------------------------------------------------------


def contract(planned: SourcePlan) -> str:
    """dbt's YAML of a source, which ingest reads as well."""
    found = planned.found
    rhythm = found.rhythm
    body = "\n".join(f"          - {_declared(planned, column)}" for column in planned.columns)
    closed = f"          closed: [{', '.join(rhythm.closed)}]\n" if rhythm.closed else ""
    volume = mapping(
        {"warn_below": rhythm.warn_below, "warn_above": rhythm.warn_above, "hold_below": rhythm.hold_below}
    )
    return f"""version: 2

# The contract with the source. Ingest reads it here: the columns a delivery must have, which of them tell
# when a row happened and when it was written, and how the source spells "missing". It was inferred from
# {found.table.rows:,} rows of {rhythm.first} to {rhythm.last}; mend it where you know better.
sources:
  - name: {planned.source}
    description: {prose(f"One file a day: what happened then, and what was written. Median rows: {rhythm.per_day:g}.")}
    database: lake
    schema: raw
    config:
      freshness:
        warn_after: {{count: 36, period: hour}}
        error_after: {{count: 7, period: day}}
      loaded_at_field: ingested_at
      meta:
        tiltyard:
{closed}          volume: {volume}
    tables:
      - name: {planned.table}
        description: {prose(_grain(planned))}
        config:
          meta:
            tiltyard:
{_timing(planned)}
        columns:
{body}
"""


def _grain(planned: SourcePlan) -> str:
    later = "; a row that is written again, with what was not known before, comes again"
    row = naming.words(naming.one_of(planned.table))
    return f"One row per {row}{later if planned.found.roles.written_later else ''}."


def _timing(planned: SourcePlan) -> str:
    found, form = planned.found, planned.found.table.form
    happened = planned.happened
    known = next((column for column in planned.columns if column.name == planned.available_at), None)
    lines = [
        f"event_time: {mapping(_time(replace(happened, is_zoned=False), found.zone))}",
        f"available_at: {mapping(_time(known, found.zone)) if known else 'ingested_at'}",
    ]
    if form.null_values:
        lines.append(f"null_values: [{', '.join(scalar(literally(value)) for value in form.null_values)}]")
    if planned.written_after is not None:
        lines.append(f"written_after: {clock.format_duration(planned.written_after)}")
    if planned.place is not None:
        said = planned.place.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
        lines.append(f"fetch: {mapping(said)}")
    spelled: dict[str, object] = {}
    if form.delimiter != ",":
        spelled["delimiter"] = form.delimiter
    if form.encoding != "utf-8":
        spelled["encoding"] = form.encoding
    if form.decimal != ".":
        spelled["decimal"] = form.decimal
    if form.thousands is not None:
        spelled["thousands"] = form.thousands
    if spelled and form.kind == "csv":
        lines.append(f"format: {mapping(spelled)}")
    return "\n".join(f"              {line}" for line in lines)


def _time(column: Column, zone: str) -> dict[str, object]:
    """A time of the contract: its column, how it is written, and the zone of times without one."""
    first, *further = column.parts or (column.name,)
    return {
        "column": first,
        **({"further": further} if further else {}),
        **({"format": column.format} if column.format else {}),
        **({"zone": zone} if zone != "UTC" and not column.is_zoned else {}),
    }


def _declared(planned: SourcePlan, column: Column) -> str:
    said = _said(planned, column)
    declared: dict[str, object] = {"name": column.name, "data_type": column.data_type}
    if said:
        declared["config"] = {"meta": {"tiltyard": said}}
    return mapping({**declared, "description": apart(_looks(planned, column))})


def _said(planned: SourcePlan, column: Column) -> dict[str, object]:
    roles, zone = planned.found.roles, planned.found.zone
    name = roles.key if column.name == planned.key and roles.key else column.name
    said: dict[str, object] = {}
    if column.header != column.name:
        said["header"] = literally(column.header)
    if name in roles.planned:
        said["planned"] = True
    if name in roles.written_later:
        when = roles.written_later[name]
        told = next((other for other in planned.columns if other.name == when), None)
        time = _time(told, zone) if told else {}
        said["written_later"] = True if told is None else told.name if len(time) == 1 else time
    if name in roles.identifies:
        said["identifies"] = True
    return said


def _looks(planned: SourcePlan, column: Column) -> str:
    """What a column holds, in a sentence."""
    if column.name == planned.key:
        return f"The {naming.words(naming.entity_of(planned.key))}."
    if column.name == planned.written_at:
        return "When the row was written as it stands."
    missing = f"; missing in {100 * column.missing / column.rows:.3g} %" if column.missing else ""
    if column.name in planned.found.roles.identifies:
        return f"{column.distinct:,} different ones{missing}."  # whoever it is, is not for a page
    if column.kind == "text" and column.values:
        shown = ", ".join(value[:LONGEST_VALUE] for value in column.values[:5]) + (
            ", …" if len(column.values) > 5 else ""
        )
        return f"{shown}{missing}."
    if column.kind == "text":
        return f"{column.distinct:,} different texts{missing}."
    if column.kind == "yes_no":
        return f"Yes or no{missing}."
    if column.is_time:
        return f"{column.least[:10]} to {column.most[:10]}{missing}."
    if column.least == column.most:
        return f"{column.least} in every row{' that has one' if missing else ''}{missing}."
    return f"{column.least} to {column.most}{missing}."


# -- staging ----------------------------------------------------------------------------------


def staging_sql(planned: SourcePlan) -> str:
    """One row per row and writing of it."""
    key = planned.key
    selected = "\n".join(f"        {_value(planned, column)}," for column in _kept(planned))
    return f"""{{{{ config(unique_key='{key}') }}}}

with

source as (

    select * from {{{{ source('{planned.source}', '{planned.table}') }}}}

),

affected as (

    select source.*
    from source
    {{%- if is_incremental() %}}
    where
        source.{key} in (
            select fresh.{key}
            from source as fresh
            where fresh.ingested_at > {{{{ last_ingested() }}}}
        )
    {{%- endif %}}

),

-- what is written at another time is another version of its row; the same one twice is one, and without its key none
numbered as (

    select
        *,
        row_number() over (
            partition by {key}, available_at
            order by event_time, source_file, row_number
        ) as copy
    from affected
    where
        available_at is not null
        and {key} is not null

),

final as (

    select
{selected}
        event_time,
        available_at,
        ingested_at,
        {{{{ built_at() }}}} as built_at
    from numbered
    where copy = 1

)

select * from final
"""


def _kept(planned: SourcePlan) -> tuple[Column, ...]:
    """The columns of the staging table: those of a delivery but its own two times, which every row has by our names.
    A day is kept, of which the event time has lost whose it was."""
    roles = planned.found.roles
    own = planned.happened.parts or (() if planned.happened.kind == "day" else (roles.event_time,))
    times = {planned.available_at, *own}
    return tuple(column for column in planned.columns if column.name not in times)


def _value(planned: SourcePlan, column: Column) -> str:
    value = f"try_strptime({column.name}, '{column.format}')" if column.format else column.name
    if column.name == planned.key and column.data_type != "varchar":
        return f"cast({column.name} as varchar) as {column.name}"
    if column.kind == "day" and column.data_type != "date":
        return f"cast({value} as date) as {column.name}"
    if column.kind == "instant" and not column.is_zoned and planned.found.zone == "UTC":
        return f"timezone('UTC', {value}) as {column.name}"
    if column.kind == "instant" and not column.is_zoned:
        return f"""{{{{ first_instant("{value}", '{planned.found.zone}') }}}} as {column.name}"""
    return column.name


def _made(planned: SourcePlan, column: Column) -> str:
    """The type that staging gives a column."""
    if column.name == planned.key:
        return "varchar"
    return {"day": "date", "instant": "timestamp with time zone"}.get(column.kind, column.data_type)


def staging_yml(planned: SourcePlan) -> str:
    """The columns of the staging table."""
    described = [(column.name, _made(planned, column), _looks(planned, column)) for column in _kept(planned)]
    times = [
        ("event_time", "timestamp with time zone", "When it happened."),
        ("available_at", "timestamp with time zone", "When it was known as it stands."),
        ("ingested_at", "timestamp with time zone", "When our loader wrote the row."),
        ("built_at", "timestamp with time zone", "Start of the build that wrote the row."),
    ]
    row = naming.words(naming.one_of(planned.table))
    description = f"One row per {row}" + (" and writing of it." if planned.found.roles.written_later else ".")
    return model(planned.staging, description, (planned.key, "available_at"), columns([*described, *times]))


def _spelled(found: Findings) -> str:
    happened = found.table.column(found.roles.event_time)
    return " and ".join(happened.parts) if happened and happened.parts else found.roles.event_time


def describe(found: Findings) -> Mapping[str, str]:
    """What the findings say, for a person: a word → what was found."""
    roles = found.roles
    later = [
        f"{name} ({f'known by {when}' if when else 'nothing tells when'})" for name, when in roles.written_later.items()
    ]
    return {
        "happened": f"{_spelled(found)}, {found.rhythm.first} to {found.rhythm.last}; naive times: {found.zone}",
        "known": roles.available_at or "not in the file: with the row itself, by the day of what is written later",
        "key": roles.key or "none is named: rows are numbered",
        "planned": ", ".join(roles.planned) or "–",
        "written later": ", ".join(later) or "–",
        "identifies": ", ".join(roles.identifies) or "–",
        "closed": ", ".join(found.rhythm.closed) or "–",
    }
