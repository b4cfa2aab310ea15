"""SQL of the rows of deliveries: the columns of their contract, with both times, each value as what it is.

Of a text every value is read as text first, and cast where it is of its column's type (`tiltyard.casts`); what is not
stops the file, with column, row and value. A time that cannot be read is NULL, and fails closed downstream. So is an
instant that Python cannot hold, like `infinity`, which is counted. A text with a NUL, which neither PostgreSQL nor JSON
of it takes, loses it here and is counted.
"""

from collections.abc import Sequence
from pathlib import Path

from tiltyard import casts, file_rows
from tiltyard.file_rows import FILE
from tiltyard.lake import quoted, text
from tiltyard.prepare.contracts import TableContract, TimeColumn
from tiltyard.prepare.landing import LandingFile

NAME = "_name"
"""The name of the row's file."""
LINE = "_line"
"""The row's place in its file, from 1."""
BEYOND = "_beyond"
"""Of how many of the row's columns the instant is one that Python cannot hold."""
NUL = "_nul"
"""Of how many of the row's texts a NUL was taken out."""
NONE_OF_THEIRS = (NAME, LINE, BEYOND, NUL)
"""What is told of a row beside its columns."""
_SHOWN = 40
"""Letters of a value that a reason shows."""


def sql(files: Sequence[LandingFile], paths: Sequence[Path], ingested_at: str, *, names_file: bool = False) -> str:
    """SQL of the rows of files of one shape, which lie in UTF-8 at `paths`: the contract's columns, `event_time` and
    `available_at`, NONE_OF_THEIRS. `ingested_at`: SQL of when they are loaded. Reading it fails where a value is
    not of its column's type; `names_file`: with the name of the file.
    """
    table, is_text = files[0].table, not files[0].is_parquet
    read, values, holed = [], [], []
    for name, kind in table.columns.items():
        if kind == "VARCHAR":
            values.append(f"replace({quoted(name)}, chr(0), '') as {quoted(name)}")
            holed.append(f"coalesce(contains({quoted(name)}, chr(0)), false)::integer")
            continue
        column, own = quoted(name), quoted(_read(name))
        read.append(f"{_value(table, name, kind, is_text=is_text)} as {own}")
        values.append(f"{_checked(table, name, kind, is_text=is_text, names_file=names_file)} as {column}")
    times = []
    for name, time in (("event_time", table.timing.event_time), ("available_at", table.timing.available_at)):
        if isinstance(time, TimeColumn):
            times.append(f"{_instant(table, time, is_text=is_text)} as {quoted(_read(name))}")
            values.append(f"{casts.held(quoted(_read(name)), 'TIMESTAMP WITH TIME ZONE')} as {name}")
        else:
            values.append(f"{ingested_at} as {name}")
    beyond = [
        f"coalesce(not {casts.is_held(quoted(_read(name)), kind)}, false)::integer"
        for name, kind in table.columns.items()
        if kind in casts.INSTANTS
    ]
    return (
        f"with delivered as ({_delivered(files, paths)}), "
        f"read as (select {', '.join(['*', *read])} from delivered), "
        f"timed as (select {', '.join(['*', *times])} from read) "
        f"select {', '.join(values)}, {NAME}, {LINE}, {' + '.join(beyond) or '0'} as {BEYOND}, "
        f"{' + '.join(holed) or '0'} as {NUL} from timed"
    )


def _delivered(files: Sequence[LandingFile], paths: Sequence[Path]) -> str:
    """Every column by its own name, of a text still as text; then NAME and LINE."""
    table = files[0].table
    if files[0].is_parquet:
        named = ", ".join(f"{quoted(table.header(name))} as {quoted(name)}" for name in files[0].columns)
        if all(header.casefold() != "file_row_number" for header in files[0].header):
            rows = file_rows.parquet(*paths, with_file=True, with_place=True)
            return f"select {named}, parse_filename({FILE}) as {NAME}, file_row_number + 1 as {LINE} from {rows}"
        rows = file_rows.parquet(*paths, with_file=True)
    else:
        named = ", ".join(quoted(name) for name in files[0].columns)
        form = table.timing.format
        rows = file_rows.csv(
            *paths, columns=files[0].columns, delimiter=form.delimiter, missing=table.timing.null_values, with_file=True
        )
    if len(files) == 1:
        return f"select {named}, {text(files[0].path.name)} as {NAME}, row_number() over () as {LINE} from {rows}"
    # the join takes a quarter of the time of a window over each file
    return (
        f"with numbered as materialized (select {named}, {FILE}, row_number() over () as _row from {rows}), "
        f"starts as (select {FILE}, parse_filename({FILE}) as {NAME}, min(_row) - 1 as _before "
        "from numbered group by all) "
        f"select numbered.* exclude ({FILE}, _row), {NAME}, _row - _before as {LINE} "
        f"from numbered inner join starts using ({FILE})"
    )


def _read(name: str) -> str:
    """What a column is called as it was read, before it is known to be of its type. No column begins like that."""
    return f"_{name}"


def _value(table: TableContract, name: str, kind: str, *, is_text: bool) -> str:
    if not is_text:
        return f"cast({quoted(name)} as {kind})"
    form, zone = table.timing.format, table.zones.get(name, "UTC")
    return casts.read(quoted(name), kind, decimal=form.decimal, thousands=form.thousands, zone=zone)


def _checked(table: TableContract, name: str, kind: str, *, is_text: bool, names_file: bool) -> str:
    """SQL of a value that is of its column's type, or of the end."""
    column, own = quoted(name), quoted(_read(name))
    value = casts.held(own, kind)
    if not is_text:
        return value
    shown = f"replace(replace(left({column}, {_SHOWN}), chr(10), ' '), chr(13), ' ')"
    start = text(f"column '{table.header(name)}' is '")
    said = f"{start} || {shown} || {text(chr(39) + ' in row ')} || {LINE} || {text(', which is no ' + kind)}"
    said = f"{NAME} || ': ' || {said}" if names_file else said
    return f"case when {own} is not null or {column} is null then {value} else error({said}) end"


def _instant(table: TableContract, time: TimeColumn, *, is_text: bool) -> str:
    """SQL of one of its two times, out of what the file has."""
    kind, own = table.columns[time.column], quoted(_read(time.column))
    if not is_text or time.further or kind == "VARCHAR":
        return instant(time, kind)
    if kind == "TIMESTAMP WITH TIME ZONE" and time.zone == table.zones.get(time.column, "UTC"):
        return own
    if kind == "DATE" or time.zone == "UTC":
        return casts.instant(f"cast({own} as timestamp)", time.zone)
    # what its clocks show does not tell the two hours apart that they show twice; a zone in the text does
    return casts.read(quoted(time.column), "TIMESTAMP WITH TIME ZONE", zone=time.zone)


def instant(time: TimeColumn, kind: str) -> str:
    """SQL of a column that is of this DuckDB type, with those behind it, as timestamptz; NULL where it cannot be read.
    A zone in a text counts, and where there is none that of the contract."""
    column = quoted(time.column)
    if time.further:
        column = "(" + " || ' ' || ".join(f"cast({quoted(name)} as varchar)" for name in time.columns) + ")"
        kind = "VARCHAR"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return column
    if kind != "VARCHAR":
        return casts.instant(f"cast({column} as timestamp)", time.zone)
    if time.format is None:
        return casts.read(column, "TIMESTAMP WITH TIME ZONE", zone=time.zone)
    value = casts.in_format(column, time.format)
    return f"cast({value} as timestamptz)" if "%z" in time.format.lower() else casts.instant(value, time.zone)
