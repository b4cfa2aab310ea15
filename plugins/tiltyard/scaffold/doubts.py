"""What a file leaves open, and how it was read: a sentence each, since nobody looks for what was silently decided."""

import re
import shlex
from collections.abc import Mapping, Sequence

import duckdb

from tiltyard import casts
from tiltyard.lake import one_row, quoted, text
from tiltyard.scaffold.found import Column, FileForm
from tiltyard.scaffold.numerals import Open
from tiltyard.words import listed

_PLAIN_MISSING = frozenset(["NULL", "null", "Null", "N/A", "n/a", "#N/A", "NaN", "nan", "\\N"])
"""Spellings of "missing" that are no value of any column."""
_DECORATED = "[(]?[-+−]?[$€£¥]? ?[0-9]{1,3}([ ,.'\u00a0\u202f]?[0-9]{3})*([.,][0-9]+)? ?[%$€£¥]?[)]?-?"
"""A number with what people write beside one: thousands, a currency, a sign of per cent, brackets of accountants."""
_DIGITS = "[-+]?[0-9]+([.][0-9]+)?"
_NEARLY = 0.9
"""Share of a column's values that are of one type from which on the others are told."""
_FEWEST = 20
_ROWS = 20_000
"""Rows that tell it."""
_SHOWN = 40
_TIME = re.compile(r"(^|_)(at|on|day|date|datum|time|timestamp|ts|when|created|updated|datetime|zeit|tag|epoch)($|_)")
_EPOCHS = ((6e8, 4.2e9, "seconds"), (6e11, 4.2e12, "milliseconds"), (6e14, 4.2e15, "microseconds"))


def of_missing(
    connection: duckdb.DuckDBPyConnection, rows: str, form: FileForm, columns: Sequence[Column]
) -> list[str]:
    """Of words that are taken for missing and stand in columns of texts as well: NA is Namibia, too. `rows`: SQL of the
    file, in which none is."""
    words = [word for word in form.null_values if word not in _PLAIN_MISSING]
    texts = [column for column in columns if column.kind == "text" and column.data_type == "varchar"]
    if not words or not texts:
        return []
    spelled = ", ".join(text(word) for word in words)
    sentences = []
    for column in texts:
        name = quoted(column.name)
        counts = connection.execute(
            f"select {name}, count(*) from {rows} where {name} in ({spelled}) group by 1 order by 1"
        ).fetchall()
        sentences += [
            f"'{word}' is taken for missing in {count:,} rows of {column.header} as well; where it is a value there, "
            "take it out of null_values in the contract, and cut the export again."
            for word, count in counts
        ]
    return sentences


def of_dates(connection: duckdb.DuckDBPyConnection, formats: Mapping[str, str], columns: Sequence[Column]) -> list[str]:
    """Of dates that may be read both ways, in columns of which no row tells which is meant. `formats`: column → how it
    was read."""
    sentences = []
    for column in columns:
        form = formats.get(column.name, "")
        if form[:5] not in ("%d/%m", "%d-%m"):
            continue
        name, other = quoted(column.name), form.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
        row = connection.execute(
            f"select bool_and(day({name}) <= 12), min({name}) filter (day({name}) <> month({name})) from sample"
        ).fetchone()
        if row and row[0] and row[1]:
            sentences.append(
                f"{column.header} may be read both ways: {row[1]:{form}} was taken for {row[1]:%Y-%m-%d}, the day "
                f"first; where the month stands first ({other}), say --month-first."
            )
    return sentences


def of_objects(said: Mapping[str, str], columns: Sequence[Column]) -> list[str]:
    """Of columns of JSON that hold objects or lists. `said`: column → the type that the file gives it."""
    nested = [column.header for column in columns if said.get(column.name, "").endswith(("]", ")", "JSON"))]
    if not nested:
        return []
    what = "holds" if len(nested) == 1 else "hold"
    return [
        f"{listed(nested)} {what} objects or lists, each of which is one text here: what is in them is no column; "
        "write it beside them in the export, like sender_id for sender.id, where it should be one."
    ]


def of_texts(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column], form: FileForm) -> list[str]:
    """Of columns of texts that are nearly something else, but for a few values, or for what stands beside numbers."""
    sentences = []
    for column in columns:
        if column.kind != "text" or column.data_type != "varchar" or column.rows - column.missing < _FEWEST:
            continue
        name = quoted(column.name)
        given, decorated, plain, coded, *counts = one_row(connection, _nearly(name, form))
        numbers, days, instants = counts[:3]
        most, what, odd = max(
            (days, "days", counts[4]), (instants, "instants", counts[5]), (numbers, "numbers", counts[3])
        )
        if _NEARLY * given <= most < given and (what != "numbers" or not coded):
            rest = f"{most:,} of {given:,} values are {what}, and '{odd[:_SHOWN]}' is none"
            sentences.append(f"{column.header} is text: {rest}; where it is meant to be, mend it in the export.")
        elif decorated == given and (plain < given or (numbers == given and form.kind == "csv")):
            sentences.append(
                f"{column.header} is text, for its numbers are written like '{column.least[:_SHOWN]}'; where they are "
                f"meant as numbers, {_way_out(column.least)}export them without what is beside their digits."
            )
    return sentences


def _way_out(shown: str) -> str:
    """What may be said of thousands instead, as part of a sentence; empty where none stand in it."""
    between = re.fullmatch("-?[1-9][0-9]{0,2}([ ,.'\u00a0\u202f])[0-9]{3}([ ,.'\u00a0\u202f][0-9]+)*", shown)
    return f"say --thousands {shlex.quote(between[1])} where these are thousands, or " if between else ""


def of_thousands(names: Sequence[Open], columns: Sequence[Column], delimiter: str) -> list[str]:
    """Of numbers that may be thousands, or have three decimals. Those with whole numbers beside them stay texts; of the
    others it is said where semicolons part the fields, as where commas stand before decimals."""
    headers = {column.name: column.header for column in columns}
    sentences = []
    for one in names:
        header = headers[one.name]
        if one.whole is not None:
            sentences.append(
                f"{header} is text, for {one.shown} beside {one.whole} may be thousands, or have three decimals: say "
                "--thousands . where it is thousands, and --thousands none where not."
            )
        elif delimiter == ";":
            sentences.append(
                f"{header} may be read both ways: {one.shown} was taken for a number with three decimals; say "
                "--thousands . where it is thousands, and --thousands none where not."
            )
    return sentences


def _nearly(name: str, form: FileForm) -> str:
    """SQL of how many of a column's values are what, and of one that is none of each."""
    kinds = ("DOUBLE", "DATE", "TIMESTAMP WITH TIME ZONE")
    fits = [
        f"coalesce({casts.is_like('value', kind, decimal=form.decimal, thousands=form.thousands)}, false)"
        for kind in kinds
    ]
    return (
        f"select count(*), count(*) filter (regexp_full_match(value, {text(_DECORATED)})), "
        f"count(*) filter (regexp_full_match(value, '{_DIGITS}')), "
        f"count(*) filter (regexp_full_match(value, '{_DIGITS}') and not ({fits[0]})), "
        + ", ".join(f"count(*) filter ({fit})" for fit in fits)
        + ", "
        + ", ".join(f"min(value) filter (not ({fit}))" for fit in fits)
        + f" from (select {name} as value from sample where {name} is not null limit {_ROWS})"
    )


def of_zones(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[Column], naive: Mapping[str, int], zone: str, happened: str
) -> list[str]:
    """Of columns in which some instants carry a zone and others none. `naive`: column → how many carry none."""
    return [
        f"{column.header} carries no zone in {naive[column.name]:,} rows, which are taken for UTC and not for {zone}; "
        "export it with a zone in every row."
        for column in columns
        if naive.get(column.name) and column.name != happened and zone != "UTC"
    ]


def like_a_time(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[Column], notes: Sequence[str] = ()
) -> list[str]:
    """Of columns that look like the time that was looked for, and are none as they are written. `notes`: what is said
    already, which is not said again."""
    sentences: list[str] = []
    for column in columns:
        is_said = any(note.startswith(f"{column.header} is text: ") for note in notes)
        if column.is_time or column.missing == column.rows or is_said:
            continue
        row = connection.execute(
            f"select {quoted(column.name)}::varchar from sample where {quoted(column.name)} is not null limit 1"
        ).fetchone()
        what = "texts" if column.kind == "text" else "numbers"
        shown = f"{column.header} holds {what} like {str(row and row[0])[:_SHOWN]!r}"
        if column.kind in ("whole", "number"):
            least, most = float(column.least), float(column.most)
            unit = next((unit for low, high, unit in _EPOCHS if low <= least and most <= high), None)
            if unit:
                sentences.append(f"{shown}, as {unit} since 1970 are: export it like 2025-03-01 10:00:00.")
            elif least >= 19_000_101 and most <= 21_001_231 and column.kind == "whole":
                sentences.append(f"{shown}, as a day without its dashes is: export it like 2025-03-01.")
            elif least >= 20_000 and most <= 80_000 and _TIME.search(column.name):
                sentences.append(f"{shown}, as a spreadsheet's days are: export it like 2025-03-01 10:00:00.")
        elif column.kind == "text" and _TIME.search(column.name):
            sentences.append(
                f"{shown}, which is no time as it is written: export it like 2025-03-01 10:00:00, or as a time where "
                "the file knows types."
            )
    return sentences[:3]
