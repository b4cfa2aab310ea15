"""Awkward files, each with what must land of it, or what the sentence says that refuses it.

They are of the kinds that people's systems write: dialects, encodings, ragged lines, headers, every way to write a time
or a number, Parquet of many writers, files that are cut off or are something else than their name says.
"""

import codecs
import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Kind:
    """A table of the source `corpus`, whose files are alike."""

    name: str
    value: str = "varchar"
    """The contract's type of the column `value`; beside it there are `id` (bigint) and `at` (varchar)."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Of `config.meta.tiltyard`, what differs."""
    shown: str = "value"
    """SQL of what is compared, beside the id."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns in the place of `value`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Column → how a file spells it."""


@dataclass(frozen=True)
class Awkward:
    """One file."""

    name: str
    """What is awkward about it."""
    kind: Kind
    made: bytes
    """What is in it."""
    lands: tuple[Row, ...] | None = None
    """Its rows as they must be in the lake: id and what `kind.shown` shows, as text; None: it is refused."""
    refused: str = ""
    """A part of the sentence that refuses it."""
    ending: str = ".csv"

    @property
    def file(self) -> str:
        """The name of the delivery."""
        return f"2025-01-01-{self.name}{self.ending}"


TEXT = Kind("plain")
SEMICOLON = Kind("semicolon", meta={"format": {"delimiter": ";"}})
TAB = Kind("tab", meta={"format": {"delimiter": "\t"}})
BAR = Kind("bar", meta={"format": {"delimiter": "|"}})
WHOLE = Kind("whole", "bigint")
INTEGER = Kind("small", "integer")
PART = Kind("part", "double")
COMMA = Kind("comma", "double", {"format": {"delimiter": ";", "decimal": ","}})
BOOLEAN = Kind("yes_or_no", "boolean")
DAY = Kind("day", "date")
CLOCK = Kind("clock", "timestamp")
INSTANT = Kind("instant", "timestamptz")
VIENNA = Kind("vienna", "timestamptz", {"event_time": {"column": "value", "zone": "Europe/Vienna"}})
CLOCK_IN_VIENNA = Kind(
    "clock_in_vienna", "timestamp", {"event_time": {"column": "value", "zone": "Europe/Vienna"}}, "event_time"
)
TEXT_IN_VIENNA = Kind(
    "text_in_vienna", "varchar", {"event_time": {"column": "value", "zone": "Europe/Vienna"}}, "event_time"
)
NAMED_LIKE_OURS = Kind(
    "named_like_ours",
    columns=dict.fromkeys(("filename", "file_row_number", "kind", "source", "rows", "hash"), "varchar"),
    shown="concat_ws(' ', filename, file_row_number, kind, source, rows, hash)",
)
SPELLED = Kind(
    "spelled",
    columns={"amount": "varchar"},
    headers={"amount": 'The "amount", in €', "id": "Id #"},
    shown="amount",
)
MISSING = Kind("missing", "double", {"null_values": ["NA", "-", "\\N"]})


def of_encoding(name: str) -> Kind:
    """A table whose files are written so."""
    return Kind("in_" + name.replace("-", "_"), meta={"format": {"encoding": name}})


def of_format(name: str, form: str, zone: str = "UTC") -> Kind:
    """A table whose times are written so."""
    return Kind(name, meta={"event_time": {"column": "value", "format": form, "zone": zone}}, shown="event_time")


def contract(kinds: Sequence[Kind]) -> str:
    """The contract with a source that delivers all of them."""
    tables = []
    for kind in kinds:
        columns = {"id": "bigint", **(kind.columns or {"value": kind.value}), "at": "varchar"}
        entries = []
        for name, data_type in columns.items():
            said = {"config": {"meta": {"tiltyard": {"header": kind.headers[name]}}}} if name in kind.headers else {}
            entries.append({"name": name, "data_type": data_type, **said})
        meta = {"event_time": {"column": "at"}, "available_at": "ingested_at", **kind.meta}
        tables.append({"name": kind.name, "config": {"meta": {"tiltyard": meta}}, "columns": entries})
    return yaml.safe_dump({"sources": [{"name": "corpus", "tables": tables}]}, sort_keys=False)


def lines(*values: str, delimiter: str = ",", end: str = "\n") -> str:
    """A text with a line for each value, which is written as it is."""
    rows = [f"{number}{delimiter}{value}{delimiter}" for number, value in enumerate(values, start=1)]
    return end.join([delimiter.join(("id", "value", "at")), *rows]) + end


def landed(*values: str | None) -> tuple[Row, ...]:
    return tuple((str(number), value) for number, value in enumerate(values, start=1))


def texts(name: str, kind: Kind, lands: Mapping[str, str | None], **how: Any) -> Awkward:
    """A file of these values: as they are written → as they must land."""
    delimiter = kind.meta.get("format", {}).get("delimiter", ",")
    return Awkward(name, kind, lines(*lands, delimiter=delimiter).encode(), landed(*lands.values()), **how)


def refusals(name: str, kind: Kind, *values: str) -> Iterator[Awkward]:
    """A file for each of these values, in the second row, which stops it. The others of the file are empty."""
    delimiter = kind.meta.get("format", {}).get("delimiter", ",")
    for number, value in enumerate(values, start=1):
        made = lines("", value, delimiter=delimiter).encode()
        shown = value.strip('"')
        yield Awkward(f"{name}-{number:02}", kind, made, refused=f"'value' is '{shown[:40]}' in row 2")


# -- texts ------------------------------------------------------------------------------------


def dialects() -> Iterator[Awkward]:
    plain = {"a": "a", '"b, c"': "b, c", '"d ""e"" f"': 'd "e" f', "": None, '""': None, " g ": " g "}
    yield texts("plain", TEXT, plain)
    yield texts("semicolons", SEMICOLON, {"a,b": "a,b", '"c;d"': "c;d"})
    yield texts("tabs", TAB, {"a b": "a b", '"c\td"': "c\td", "e\\tf": "e\\tf"})
    yield texts("bars", BAR, {"a,b": "a,b", '"c|d"': "c|d", "'e": "'e"})
    yield texts("newline-in-quotes", TEXT, {'"a\nb"': "a\nb", '"c\r\nd"': "c\r\nd", '"\n"': "\n"})
    yield Awkward("windows-lines", TEXT, lines("a", "b", end="\r\n").encode(), landed("a", "b"))
    yield Awkward("old-mac-lines", TEXT, lines("a", "b", end="\r").encode(), refused="last line is cut off")
    yield Awkward("mixed-lines", TEXT, b"id,value,at\r\n1,a,\n2,b,\r\n", landed("a", "b"))
    yield Awkward("no-last-break", TEXT, b"id,value,at\n1,a,", refused="last line is cut off")
    yield Awkward("empty-lines-below", TEXT, b"id,value,at\n1,a,\n\n\n", landed("a"))
    yield Awkward("empty", TEXT, b"", refused="0 bytes")
    yield Awkward("header-only", TEXT, b"id,value,at\n", ())
    yield Awkward("no-header", TEXT, b"1,a,\n2,b,\n", refused="missing")
    yield Awkward("line-too-long", TEXT, b"id,value,at\n1,a,,x\n2,b,\n", refused="rows cannot be read")
    yield Awkward("line-too-short", TEXT, b"id,value,at\n1,a,\n2,b\n", refused="rows cannot be read")
    yield Awkward("comma-at-the-end", TEXT, b"id,value,at\n1,a,,\n", landed("a"))
    yield Awkward("open-quote", TEXT, b'id,value,at\n1,"a,\n2,b,\n', refused="rows cannot be read")
    yield Awkward("text-after-quote", TEXT, b'id,value,at\n1,"a"b,\n', refused="rows cannot be read")
    yield texts("quote-inside", TEXT, {'a"b': 'a"b', "5' 3": "5' 3"})
    yield texts("backslashes", TEXT, {"a\\": "a\\", "\\N": "\\N", "C:\\new": "C:\\new"})
    yield texts("comments", TEXT, {"# no comment": "# no comment", "// a": "// a"})
    hashes = b"value,id,at\n#a,1,\n#b,2,\nc,3,\n#d,4,\n"
    yield Awkward("lines-like-comments", TEXT, hashes, landed("#a", "#b", "c", "#d"))
    yield texts("formulas", TEXT, {"=1+1": "=1+1", "@a": "@a", "+43 1": "+43 1", "-": "-"})
    yield texts("injection", TEXT, {"'; drop table raw.plain; --": "'; drop table raw.plain; --", "{{ 1 }}": "{{ 1 }}"})
    yield texts(
        "words-for-nothing", TEXT, {word: word for word in ("NULL", "null", "NA", "None", "nan", "N/A", "undefined")}
    )
    yield texts(
        "letters",
        TEXT,
        {text: text for text in ("żółć", "漢字", "🙂", "e\u0301", "\u200b", "\u202eabc", "ﬁ", "\u00a0")},
    )
    yield texts("control-letters", TEXT, {"a\x01b": "a\x01b", "\x7f": "\x7f", "a\x0bb": "a\x0bb", "a\x85b": "a\x85b"})
    # PostgreSQL holds no NUL: it is taken out at the door, and counted.
    yield texts("a-zero-byte", TEXT, {"a\0b": "ab"})
    yield texts("a-long-text", TEXT, {"x" * 200_000: "x" * 200_000})
    yield Awkward("a-line-of-megabytes", TEXT, lines("x" * 3_000_000).encode(), refused="rows cannot be read")
    yield texts(
        "identifiers",
        TEXT,
        {text: text for text in ("007", "1e5", "12345678901234567890", "0x1F", "1_000", "TRUE", "1.0")},
    )
    yield Awkward("byte-order-mark", TEXT, codecs.BOM_UTF8 + lines("a").encode(), landed("a"))
    yield Awkward("mark-twice", TEXT, codecs.BOM_UTF8 * 2 + lines("a").encode(), refused="missing")
    yield Awkward("packed", TEXT, gzip.compress(lines("a", "b").encode()), landed("a", "b"), ending=".csv.gz")
    yield Awkward(
        "packed-in-parts",
        TEXT,
        gzip.compress(b"id,value,at\n") + gzip.compress(b"1,a,\n"),
        landed("a"),
        ending=".csv.gz",
    )
    yield Awkward(
        "packed-cut-off", TEXT, gzip.compress(lines(*"abcdef").encode())[:-9], refused="cut off", ending=".csv.gz"
    )
    yield Awkward("packed-and-no-name-for-it", TEXT, gzip.compress(lines("a").encode()), refused="")
    yield Awkward("not-packed", TEXT, lines("a").encode(), refused="cannot be unpacked", ending=".csv.gz")
    yield Awkward("tabs-for-commas", TEXT, lines("a", delimiter="\t").encode(), refused="tabs")
    yield Awkward("semicolons-for-commas", TEXT, lines("a", delimiter=";").encode(), refused="semicolons")
    yield Awkward("a-word-before", TEXT, b"sep=,\nid,value,at\n1,a,\n", refused="missing")
    yield Awkward("a-title-before", TEXT, b"Report of May,,\nid,value,at\n1,a,\n", refused="is there twice")
    yield Awkward("a-sum-below", TEXT, b"id,value,at\n1,a,\nsum,1,\n", refused="'id' is 'sum' in row 2")
    yield Awkward("rows-of-a-database", TEXT, b"id,value,at\n1,a,\n(1 row)\n", refused="rows cannot be read")


def headers() -> Iterator[Awkward]:
    for name, header, said in (
        ("twice", "id,value,value", "'value' is there twice"),
        ("empty", "id,,value,at", "'' is not in the contract"),
        ("upper-case", "ID,Value,At", "renamed?"),
        ("spaces", "id, value,at", "renamed?"),
        ("more", "id,value,at,extra", "'extra' is not in the contract"),
        ("fewer", "id,value", "'at' is missing"),
        ("quotes-open", 'id,"value,at', "missing"),
        ("invisible", "id,value\u200b,at", "renamed?"),
        ("look-alike", "id,v\u0430lue,at", "renamed?"),
    ):  # fmt: skip
        yield Awkward(
            f"header-{name}", TEXT, f"{header}\n{'1,a,b,c'[: 2 * header.count(',') + 1]}\n".encode(), refused=said
        )
    yield Awkward("header-in-quotes", TEXT, b'"id","value","at"\n1,a,\n', landed("a"))
    yield Awkward("header-in-another-order", TEXT, b"at,value,id\n,a,1\n", landed("a"))
    spelled = '"Id #","The ""amount"", in €",at\n1,a,\n'
    yield Awkward("header-spelled", SPELLED, spelled.encode(), landed("a"))
    names = ("id", *NAMED_LIKE_OURS.columns, "at")
    ours = ",".join(names) + "\n1,a,b,c,d,e,f,\n"
    yield Awkward("header-like-ours", NAMED_LIKE_OURS, ours.encode(), landed("a b c d e f"))
    yield Awkward("header-like-ours-too", NAMED_LIKE_OURS, ours.replace("1,a", "1,g").encode(), landed("g b c d e f"))


def encodings() -> Iterator[Awkward]:
    for name, value in (
        ("latin-1", "thé"), ("cp1252", "5 €"), ("utf-16", "thé 漢字"), ("utf-16-le", "thé"), ("koi8-r", "чай"),
        ("shift_jis", "お茶"), ("gb18030", "茶🙂"), ("cp437", "thé"), ("utf-8-sig", "thé"), ("mac-roman", "thé"),
    ):  # fmt: skip
        yield Awkward(f"encoding-{name}", of_encoding(name), lines(value, "b").encode(name), landed(value, "b"))
    yield Awkward(
        "encoding-packed",
        of_encoding("utf-16"),
        gzip.compress(lines("thé").encode("utf-16")),
        landed("thé"),
        ending=".csv.gz",
    )
    yield Awkward("encoding-half-a-letter", of_encoding("utf-16"), lines("a").encode("utf-16")[:-1], refused="")
    yield Awkward("latin-for-utf8", TEXT, lines("thé").encode("latin-1"), refused="rows cannot be read")
    yield Awkward("utf16-for-utf8", TEXT, lines("a").encode("utf-16"), refused="")
    yield Awkward("utf8-for-utf16", of_encoding("utf-16"), lines("a").encode(), refused="")
    yield Awkward(
        "half-of-a-pair", TEXT, lines("X").encode().replace(b"X", b"\xed\xa0\x80"), refused="rows cannot be read"
    )
    yield Awkward(
        "too-long-a-letter", TEXT, lines("X").encode().replace(b"X", b"\xc0\xaf"), refused="rows cannot be read"
    )
    yield Awkward("utf8-header-latin", TEXT, b"id,val\xfce,at\n1,a,\n", refused="not UTF-8 text")


# -- values -----------------------------------------------------------------------------------


def numbers() -> Iterator[Awkward]:
    whole = {"7": "7", "+7": "7", "-7": "-7", " 7 ": "7", "007": "7", "7.0": "7", "7.": "7", "-0": "0"}
    yield texts(
        "whole",
        WHOLE,
        whole | {"9223372036854775807": "9223372036854775807", "-9223372036854775808": "-9223372036854775808"},
    )
    yield from refusals(
        "no-whole", WHOLE, "3.7", "2.5", "1e-5", "1e3", "0x1F", "0b11", "0o7", "1_000", '"1,000"', "1 000", "--1", "1-",
        "(1)", "٣", "７", "9223372036854775808", "1\u00a0000", "5L", "true", "NaN", "Infinity", "½", ".5", "7.1", "'7'",
    )  # fmt: skip
    yield from refusals("no-integer", INTEGER, "2147483648", "-2147483649", "1.5")
    part = {
        "1.5": "1.5", "-1.5": "-1.5", ".5": "0.5", "5.": "5.0", "1e3": "1000.0", "1E-3": "0.001", "0.1": "0.1",
        "1.7976931348623157e308": "1.7976931348623157e+308", "5e-324": "5e-324", "00.5": "0.5", " 1 ": "1.0",
        "123456789012345678": "1.2345678901234568e+17", "NaN": "nan", "-inf": "-inf", "Infinity": "inf",
    }  # fmt: skip
    yield texts("part", PART, part)
    yield from refusals(
        "no-part", PART, "0x1F", "1_000", "1.5_5", "1e400", "-1e999", '"1,5"', "1.5.5", "1e", "1e1.5", "1 5", "1.5 €",
        "$1", "5%", "１", "nan(1)", "1d", "NULL", "-", "e5", "1/2",
    )  # fmt: skip
    yield texts("decimal-comma", COMMA, {"1,5": "1.5", "-,5": "-0.5", "1,": "1.0", "1": "1.0", "1,5e2": "150.0"})
    yield from refusals("no-decimal-comma", COMMA, "1.5", "1.500", "1.000,5", "1,5,5", "1 000,5", ",")
    yield texts("spelled-missing", MISSING, {"NA": None, "-": None, "\\N": None, '"NA"': None, "": None, "1": "1.0"})
    yield from refusals("spelled-otherwise", MISSING, "n/a", "na", "--", "?")
    nine = {
        "true": "true",
        "FALSE": "false",
        "True": "true",
        "t": "true",
        "F": "false",
        "yes": "true",
        "No": "false",
        "1": "true",
        "0": "false",
    }
    yield texts("yes-and-no", BOOLEAN, nine)
    yield from refusals("no-yes-or-no", BOOLEAN, "2", "1.0", "on", "ja", "wahr", "00", "-1", "x", "oui")


def days() -> Iterator[Awkward]:
    yield texts("days", DAY, {
        "2025-01-01": "2025-01-01", "2025-1-2": "2025-01-02", "2025/03/04": "2025-03-04", "2024-02-29": "2024-02-29",
        "2025-01-01 00:00:00": "2025-01-01", "2025-01-01T00:00": "2025-01-01", "2025-01-02T00:00:00Z": "2025-01-02",
        "2025-01-02 00:00:00+02:00": "2025-01-02", "0001-01-01": "0001-01-01",
        "9999-12-31": "9999-12-31", "0999-12-31": "0999-12-31",
    })  # fmt: skip
    yield texts(
        "days-beyond",
        DAY,
        dict.fromkeys(("infinity", "-infinity", "10000-01-01", "0000-01-01", "2025-01-01 (BC)"), None),
    )
    yield from refusals(
        "no-day", DAY, "25-01-01", "2025-01-01 10:00:00", "2025-01-1x", "2025-01-01x", "2025-02-30",
        "2025-13-01", "01/02/2025", "1.2.2025", "20250101", "2025-01", "2025", "Jan 1 2025", "epoch", "today",
        "2025-W01-1", "2025-001", "45658",
    )  # fmt: skip


def clocks() -> Iterator[Awkward]:
    plain = {
        "2025-01-01 10:00:00": "2025-01-01 10:00:00", "2025-01-01T10:00": "2025-01-01 10:00:00",
        "2025-01-01": "2025-01-01 00:00:00", "2025-01-01 10:00:00.123456": "2025-01-01 10:00:00.123456",
        "2025-01-01 10:00:00.123456789": "2025-01-01 10:00:00.123456", "2025-01-01T10:00:00Z": "2025-01-01 10:00:00",
        "2025-01-01T12:00:00+02:00": "2025-01-01 10:00:00", "2025-01-01 24:00:00": "2025-01-02 00:00:00",
        "2025-01-01 10:00:00 UTC": "2025-01-01 10:00:00", "9999-12-31 23:59:59": "9999-12-31 23:59:59",
    }  # fmt: skip
    yield texts("clocks", CLOCK, plain)
    yield texts("instants", INSTANT, {text: f"{value}+00" for text, value in plain.items()} | {
        "2025-01-01 10:00:00 +0200": "2025-01-01 08:00:00+00", "2025-01-01 10:00:00 Z": "2025-01-01 10:00:00+00",
        "2025-01-01T10:00:00-0330": "2025-01-01 13:30:00+00", "2025-01-01T10:00:00+14": "2024-12-31 20:00:00+00",
        "2025-07-01 10:00:00 America/New_York": "2025-07-01 14:00:00+00",
        "2025-01-01 10:00 GMT": "2025-01-01 10:00:00+00",
        "2025-01-01T10:00Z": "2025-01-01 10:00:00+00", "2025-01-01T10:00 +02:00": "2025-01-01 08:00:00+00",
    })  # fmt: skip
    far = ("infinity", "-infinity", "10000-01-01 00:00:00", "0044-03-15 (BC)", "290000-01-01")
    yield texts("clocks-beyond", CLOCK, dict.fromkeys(far, None))
    yield texts(
        "instants-beyond", INSTANT, dict.fromkeys((*far, "9999-12-31 23:59:59-01", "0001-01-01 00:00:00+01"), None)
    )
    wrong = (
        "25-01-01 10:00:00", "2016-12-31 23:59:60", "2025-01-01 25:00:00", "2025-01-01 10:00 PM",
        "2025-01-01 10:00:00x",
        "2025-01-01 10:00:00 CST", "2025-01-01 10:00:00 CET", "20250101T100000Z", "2025-02-30 10:00:00", "1735725600",
        "Wed Jan 1 10:00:00 2025", "2025-01-01 10", "10:00:00", "now", "45658.5", '"2025-01-01T10:00:00,5"',
    )  # fmt: skip
    yield from refusals("no-clock", CLOCK, *wrong)
    yield from refusals("no-instant", INSTANT, *wrong)
    local = {
        "2025-01-01 12:00:00": "2025-01-01 11:00:00+00", "2025-01-01 12:00:00 UTC": "2025-01-01 12:00:00+00",
        "2025-01-01 12:00:00Z": "2025-01-01 12:00:00+00", "2025-07-01 12:00:00": "2025-07-01 10:00:00+00",
        "2025-07-01 12:00:00+00:00": "2025-07-01 12:00:00+00", "2025-01-01": "2024-12-31 23:00:00+00",
        "2025-03-30 02:30:00": "2025-03-30 01:30:00+00", "2025-10-26 02:30:00": "2025-10-26 00:30:00+00",
        "2025-10-26 02:30:00+01:00": "2025-10-26 01:30:00+00", "2025-10-26 03:00:00": "2025-10-26 02:00:00+00",
    }  # fmt: skip
    for kind in (VIENNA, CLOCK_IN_VIENNA, TEXT_IN_VIENNA):
        yield texts(f"{kind.name}-nights", kind, local)
    yield texts(
        "text-in-vienna-odd",
        TEXT_IN_VIENNA,
        dict.fromkeys(("25-01-01 10:00", "yesterday", "infinity", "2016-12-31 23:59:60"), None),
    )
    yield texts(
        "written-years-too-short",
        of_format("years_too_short", "%d/%m/%Y"),
        {"01/02/2025": "2025-02-01 00:00:00+00", "01/02/25": None, "01/02/0025": None},
    )
    for name, form, written, instant in (
        ("day-first", "%d/%m/%Y %H:%M", "03/04/2025 10:00", "2025-04-03 10:00:00+00"),
        ("month-first", "%m/%d/%Y %I:%M %p", "03/04/2025 10:00 PM", "2025-03-04 22:00:00+00"),
        ("dots", "%d.%m.%Y", "3.4.2025", "2025-04-03 00:00:00+00"),
        ("two-digits", "%d/%m/%y", "14/03/85", "1985-03-14 00:00:00+00"),
        ("with-offset", "%d/%m/%Y %H:%M %z", "03/04/2025 10:00 +0200", "2025-04-03 08:00:00+00"),
        ("named-month", "%d %b %Y", "3 Apr 2025", "2025-04-03 00:00:00+00"),
        ("packed-digits", "%Y%m%d%H%M%S", "20250403100000", "2025-04-03 10:00:00+00"),
        ("day-of-year", "%Y-%j", "2025-093", "2025-04-03 00:00:00+00"),
    ):  # fmt: skip
        kind = of_format("written_" + name.replace("-", "_"), form)
        yield texts(f"written-{name}", kind, {written: instant, "nonsense": None, "": None})


# -- Parquet and others -----------------------------------------------------------------------


def parquet(values: pa.Array, **how: Any) -> bytes:
    """A Parquet file of these values."""
    size = len(values)
    table = pa.table(
        {"id": pa.array(range(1, size + 1), pa.int64()), "value": values, "at": pa.nulls(size, pa.string())}
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **how)
    return sink.getvalue()


def columnar() -> Iterator[Awkward]:
    def whole(name: str, kind: Kind, values: pa.Array, *lands: str | None, **how: Any) -> Awkward:
        return Awkward(f"parquet-{name}", kind, parquet(values, **how), landed(*lands), ending=".parquet")

    def wrong(name: str, kind: Kind, values: pa.Array, said: str) -> Awkward:
        return Awkward(f"parquet-{name}", kind, parquet(values), refused=said, ending=".parquet")

    at = [datetime(2025, 1, 1, 10, tzinfo=UTC), None]
    yield whole("texts", TEXT, pa.array(["a", None, "", "007"]), "a", None, "", "007")
    yield whole("large-strings", TEXT, pa.array(["a", "b"], pa.large_string()), "a", "b")
    yield whole("dictionary", TEXT, pa.array(["a", "b", "a"]).dictionary_encode(), "a", "b", "a")
    yield whole("views", TEXT, pa.array(["a", "a text that is longer"], pa.string_view()), "a", "a text that is longer")
    for name in ("none", "snappy", "gzip", "zstd", "brotli", "lz4"):
        yield whole(f"packed-{name}", TEXT, pa.array(["a", "b"]), "a", "b", compression=name)
    yield whole("version-1", TEXT, pa.array(["a"]), "a", version="1.0", data_page_version="1.0")
    yield whole("pages-2", TEXT, pa.array(["a"]), "a", data_page_version="2.0")
    yield whole("many-row-groups", TEXT, pa.array(list("abcd")), *"abcd", row_group_size=1)
    yield Awkward("parquet-no-rows", TEXT, parquet(pa.array([], pa.string())), (), ending=".parquet")
    sink = io.BytesIO()
    schema = pa.schema({"id": pa.int64(), "value": pa.string(), "at": pa.string()})
    with pq.ParquetWriter(sink, schema) as writer:
        writer.write_table(pa.table({"id": [1], "value": ["a"], "at": [None]}, schema))
        writer.write_table(schema.empty_table())
        writer.write_table(pa.table({"id": [2], "value": ["b"], "at": [None]}, schema))
    yield Awkward("parquet-an-empty-row-group", TEXT, sink.getvalue(), landed("a", "b"), ending=".parquet")
    yield whole("all-missing", TEXT, pa.nulls(2, pa.string()), None, None)
    yield whole("narrow", WHOLE, pa.array([1, None], pa.int8()), "1", None)
    yield whole("unsigned", WHOLE, pa.array([4_294_967_295], pa.uint32()), "4294967295")
    yield whole("single-precision", PART, pa.array([0.5, None], pa.float32()), "0.5", None)
    yield whole("not-a-number", PART, pa.array([float("nan"), float("-inf")]), "nan", "-inf")
    yield whole("instants", INSTANT, pa.array(at, pa.timestamp("us", "UTC")), "2025-01-01 10:00:00+00", None)
    yield whole(
        "instants-of-a-zone", INSTANT, pa.array(at, pa.timestamp("us", "Asia/Tokyo")), "2025-01-01 10:00:00+00", None
    )
    yield whole(
        "int96",
        CLOCK,
        pa.array(at, pa.timestamp("us")),
        "2025-01-01 10:00:00",
        None,
        use_deprecated_int96_timestamps=True,
    )
    yield whole("days", DAY, pa.array([date(2025, 1, 1), date(1, 1, 1)], pa.date32()), "2025-01-01", "0001-01-01")
    yield whole(
        "instants-beyond",
        INSTANT,
        pa.array([2**62, -(2**62), 0], pa.timestamp("us", "UTC")),
        None,
        None,
        "1970-01-01 00:00:00+00",
    )
    yield whole("days-beyond", DAY, pa.array([10_000_000, -10_000_000, 0], pa.date32()), None, None, "1970-01-01")
    yield wrong("nanoseconds", CLOCK, pa.array([1], pa.timestamp("ns")), "TIMESTAMP_NS instead of TIMESTAMP")
    yield wrong("clocks-for-instants", INSTANT, pa.array([1], pa.timestamp("us")), "TIMESTAMP instead of")
    yield wrong("fractions-for-whole", WHOLE, pa.array([3.0]), "DOUBLE instead of BIGINT")
    yield wrong("decimals", PART, pa.array([Decimal("1.10")], pa.decimal128(9, 2)), "DECIMAL(9,2) instead of DOUBLE")
    yield wrong("wide-decimals", WHOLE, pa.array([Decimal(1)], pa.decimal128(38, 0)), "DECIMAL(38,0) instead of BIGINT")
    yield wrong("wide-unsigned", WHOLE, pa.array([2**64 - 1], pa.uint64()), "UBIGINT instead of BIGINT")
    yield whole("half-precision", PART, pa.array([1.5], pa.float16()), "1.5")
    yield wrong("bytes", TEXT, pa.array([b"a\xff"], pa.binary()), "BLOB instead of VARCHAR")
    yield wrong("lists", TEXT, pa.array([["a"]]), "VARCHAR[] instead of VARCHAR")
    yield wrong("structs", TEXT, pa.array([{"a": 1}]), "STRUCT(a BIGINT) instead of VARCHAR")
    yield wrong("maps", TEXT, pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "MAP(VARCHAR, BIGINT) instead")
    yield wrong("times-of-day", CLOCK, pa.array([1], pa.time64("us")), "TIME instead of TIMESTAMP")
    yield whole("durations", WHOLE, pa.array([1], pa.duration("us")), "1")
    yield wrong("nothing-known", TEXT, pa.nulls(2), "instead of VARCHAR")
    sound = parquet(pa.array(["a", "b"] * 50))
    for name, made in (
        ("cut-off", sound[:-20]), ("no-footer", sound[:60]), ("four-bytes", b"PAR1"), ("footer-only", sound[-200:]),
        ("zeros-inside", sound[:4] + bytes(60) + sound[64:]), ("encrypted", b"PARE" + sound[4:-4] + b"PARE"),
        ("length-of-a-lie", sound[:-8] + b"\xff\xff\xff\x7fPAR1"), ("text", lines("a").encode()), ("empty", b""),
    ):  # fmt: skip
        yield Awkward(f"parquet-{name}", TEXT, made, refused="", ending=".parquet")


def others() -> Iterator[Awkward]:
    """What is something else than its name says."""
    with io.BytesIO() as packed:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.csv", lines("a"))
        zipped = packed.getvalue()
    nested = [{"id": 1, "value": {"a": [1, {"b": None}]}, "at": None}, {"id": 2, "value": [], "at": ""}]
    for name, made in (
        ("zip", zipped), ("parquet", parquet(pa.array(["a"]))),
        ("json-lines", "\n".join(map(json.dumps, nested)).encode() + b"\n"),
        ("json", json.dumps(nested).encode()), ("html", b"<table><tr><td>id,value,at</td></tr></table>\n"),
        ("xml", b"<?xml version='1.0'?>\n<a/>\n"), ("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), ("zeros", bytes(5000)),
        ("noise", bytes(range(256)) * 20), ("sqlite", b"SQLite format 3\0" + bytes(100)), ("a-line-break", b"\n"),
        ("an-error", b"504 Gateway Time-out\n"), ("a-word", b"id\n"),
    ):  # fmt: skip
        yield Awkward(f"in-truth-{name}", TEXT, made, refused="")


def files() -> tuple[Awkward, ...]:
    """All of them; the names differ."""
    made = (*dialects(), *headers(), *encodings(), *numbers(), *days(), *clocks(), *columnar(), *others())
    assert len({file.name for file in made}) == len(made)
    return made
