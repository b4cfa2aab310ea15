"""A key that stands in several rows: whole repeats of one, or versions of it."""

import re
from dataclasses import dataclass, replace

from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.scaffold import inferring
from tiltyard.scaffold.found import Column, Table
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.sample import Opened
from tiltyard.words import counted, listed

_KEY = re.compile(r"(^|_)(id|no|nr|number|key|code|uuid)($|_)")
_TOTALS = ("sum", "total", "totals", "grand total", "summe", "gesamt", "insgesamt", "somme", "totale")
"""What stands in a line of totals where a key would be."""
_AT_ONCE = 25
_FEW = 0.01
"""Share of rows that may have no key."""
_MOVED = 0.1
"""Share of keys whose rows may happen at several times, and still be versions: a time is corrected, too."""


@dataclass(frozen=True)
class Writings:
    """What the rows of one key are to each other."""

    key: Column
    repeats: int
    """Rows that are another one once more, value by value."""
    again: int
    """Rows beyond the first of their key, whole repeats left out."""
    changing: tuple[str, ...]
    """Columns that differ between rows of a key, by our names."""
    is_one: bool
    """The rows of a key are of one thing, which happened once: in nine of ten keys at least they have one time."""
    told_by: tuple[str, ...]
    """Instants among them of which no key has one twice, so that they may tell when each was written; headers."""


def of_key(opened: Opened, key: Column, happened: Column) -> Writings:
    """What the rows of a column's values are to each other, by when they happened."""
    connection, name = opened.connection, quoted(key.name)
    own = [column for column in opened.table.columns if not column.parts and column.name != key.name]
    connection.execute("create or replace temp table once as select distinct * exclude (_line) from sample")
    once, keyed, keys = connection.execute(
        f"select count(*), count({name}), count(distinct {name}) from once"
    ).fetchone() or (0, 0, 0)
    changing: list[str] = []
    for start in range(0, len(own), _AT_ONCE):
        some = own[start : start + _AT_ONCE]
        values = ", ".join(
            f"count(distinct coalesce({quoted(column.name)}::varchar, chr(0))) > 1 as c{place}"
            for place, column in enumerate(some)
        )
        flags = ", ".join(f"bool_or(c{place})" for place in range(len(some)))
        row = connection.execute(
            f"select {flags} from (select {values} from once where {name} is not null group by {name})"
        ).fetchone()
        changing += [column.name for column, is_it in zip(some, row or (), strict=True) if is_it]
    told_by = []
    for column in own:
        if column.name in changing and column.kind == "instant":
            pair = f"select count(distinct ({name}, {quoted(column.name)})) from once where {name} is not null"
            [count] = connection.execute(pair).fetchone() or (0,)
            told_by += [column.header] if count == keyed else []
    several, moved = connection.execute(
        f"select count(*), count(*) filter (times > 1) from (select count(distinct {quoted(happened.name)}) as times "
        f"from once where {name} is not null group by {name} having count(*) > 1)"
    ).fetchone() or (0, 0)
    is_one = moved <= _MOVED * several
    return Writings(key, opened.table.rows - once, keyed - keys, tuple(changing), is_one, tuple(told_by))


def settled(opened: Opened, said: Said, happened: Column) -> tuple[Opened, Said, Writings | None, list[str]]:
    """The rows without whole repeats, where a key is said or found; what is said, with such a key; the versions of it,
    where a column tells when each was written; and sentences on all that.

    Raises BadInput for a key that is said and names no row, with what its rows are and what to do.
    """
    table = opened.table
    if said.key is None:
        return _found(opened, said, happened)
    key = inferring.named(table, said.key, "--key")
    opened, key, totals = _without_totals(opened, key, happened)
    if key.is_unique:
        return opened, said, None, totals
    found = of_key(opened, key, happened)
    if (not found.again and key.missing) or key.missing > _FEW * key.rows:
        raise BadInput(
            f"--key: '{key.header}' does not name a row: {counted(key.missing, 'row')} of {key.rows:,} have none; give "
            "another column, take these out of the export, or name none, and the rows are numbered."
        )
    notes = totals + _repeated(found)
    if not found.again:
        return without_repeats(opened), said, None, notes
    if not found.is_one:
        raise BadInput(
            f"--key: '{key.header}' does not name a row: {counted(found.again, 'row')} of {key.rows:,} repeat one, and "
            "happened at other times; give another column, or none, and the rows are numbered."
        )
    if said.available_at is None or said.available_at == "ingested_at":
        raise BadInput(f"--key: {_versions(found)}{_way_out(found)}")
    known = inferring.named(table, said.available_at, "--available-at")
    if known.header not in found.told_by:
        raise BadInput(
            f"--key: {_versions(found)} By {known.header} some of them were written at once"
            f"{', for it tells no more than a day' if known.kind == 'day' else ''}.{_way_out(found)}"
        )
    if key.missing:
        notes.append(f"{counted(key.missing, 'row')} of {key.rows:,} have no {key.header}: of these nothing is told.")
    changing = [name for name in found.changing if name != known.name]
    notes.append(
        f"{counted(found.again, 'row')} are later versions of one, each as it was written by {known.header}; taken to "
        f"be written later is what changes between them: {', '.join(changing) or 'nothing'}."
    )
    return without_repeats(opened), said, found, notes


def _found(opened: Opened, said: Said, happened: Column) -> tuple[Opened, Said, Writings | None, list[str]]:
    """The same, where no key is said: a column that is called like one, and whose rows are repeats or look like
    versions of one thing, which happened once."""
    columns = [column for column in opened.table.columns if _KEY.search(column.name) and not column.parts]
    columns = [column for column in columns if column.kind in ("whole", "text")]
    if unique := next((column for column in columns if column.is_unique), None):
        opened, _, totals = _without_totals(opened, unique, happened)
        return opened, said, None, totals
    for one in columns:
        if 0.2 * one.rows <= one.distinct and one.missing <= _FEW * one.rows:
            opened, column, totals = _without_totals(opened, one, happened)
            found = of_key(opened, column, happened)
            if not found.again and not column.missing:
                notes = totals + _repeated(found)
                return without_repeats(opened), replace(said, key=column.header), None, notes
            if found.again and found.is_one:
                return opened, said, None, [f"{_versions(found)}{_way_out(found)}"]
    return opened, said, None, []


def _without_totals(opened: Opened, key: Column, happened: Column) -> tuple[Opened, Column, list[str]]:
    """The file without rows that have no time, and no key or a word for totals in its place; that column as it is then;
    and a sentence on them."""
    name = quoted(key.name)
    of_all = f"{name} is null or lower(trim({name}::varchar)) in ({', '.join(map(text, _TOTALS))})"
    nothing = f"{quoted(happened.name)} is null and ({of_all})"
    [count] = opened.connection.execute(f"select count(*) from sample where {nothing}").fetchone() or (0,)
    if not 0 < count <= _FEW * key.rows:
        return opened, key, []
    opened.connection.execute(f"delete from sample where {nothing}")
    opened = _counted_again(opened)
    what = f"{key.header} nor {happened.header} as others have it, like a line of totals"
    note = f"{counted(count, 'row')} with neither {what}: left out."
    return opened, next(column for column in opened.table.columns if column.name == key.name), [note]


def _repeated(found: Writings) -> list[str]:
    what = "row is a whole repeat" if found.repeats == 1 else "rows are whole repeats"
    return [f"{found.repeats:,} {what} of another with its {found.key.header}, and left out."] * bool(found.repeats)


def _versions(found: Writings) -> str:
    return (
        f"'{found.key.header}' stands in {counted(found.again, 'row')} more than once, which are versions of one: "
        f"between them {listed(found.changing)} {'changes' if len(found.changing) == 1 else 'change'}."
    )


def _way_out(found: Writings) -> str:
    option = f"--key {found.key.header} --available-at"
    if found.told_by:
        return f" Where {found.told_by[0]} tells when each was written, say {option} {found.told_by[0]}."
    return (
        f" Say {option} with an instant that tells when each was written; where none does, lay what came each day into "
        "the landing zone as its deliveries (docs/how-to/add-a-source.md), or give another key."
    )


def without_repeats(opened: Opened) -> Opened:
    """The rows, each once."""
    grouped = ", ".join(quoted(column.name) for column in opened.table.columns)
    opened.connection.execute(
        f"delete from sample where _line not in (select min(_line) from sample group by {grouped})"
    )
    return _counted_again(opened)


def _counted_again(opened: Opened) -> Opened:
    """What its columns look like, by the rows that are left."""
    names = [column.name for column in opened.table.columns]
    counts = ", ".join(f"count({quoted(name)}), count(distinct {quoted(name)})" for name in names)
    rows, *found = opened.connection.execute(f"select count(*), {counts} from sample").fetchone() or (0,)
    columns = tuple(
        replace(column, rows=rows, missing=rows - given, distinct=distinct)
        for column, given, distinct in zip(opened.table.columns, found[::2], found[1::2], strict=True)
    )
    return replace(opened, table=Table(opened.table.form, rows, columns))
