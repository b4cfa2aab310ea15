"""Awkward files, all at once: what lands is what was written, what cannot land is refused in a sentence, and no file
stops another. The same files are audited and looked at as those of a new source: there is no traceback, and no value
that is silently another."""

import csv
import io
import math
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.corpus import awkward
from tests.corpus.awkward import Awkward
from tiltyard import clock, file_rows
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.leak import formats
from tiltyard.leak.audit import audit
from tiltyard.prepare import ingest
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.rails import Rails
from tiltyard.scaffold import sample
from tiltyard.settings import Settings

FILES = awkward.files()
OTHERWISE = ("text-after-quote", "a-word-before", "no-whole-25", "header-quotes-open")
"""Files that Python takes apart in another way: a quote in the middle, a line above the header, single quotes."""
TRUE, FALSE = ("true", "t", "yes", "y"), ("false", "f", "no", "n")


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[tuple[Rails, IngestSummary]]:
    """All of them in one landing zone, and the night that took them."""
    home = tmp_path_factory.mktemp("corpus") / "value=1" / "id=2"
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    settings = Settings(home=home, dbt=home / "dbt", database_url=postgres_url, database_prefix=prefix)
    folder = settings.dbt / "models" / "staging" / "corpus"
    folder.mkdir(parents=True)
    kinds = {file.kind.name: file.kind for file in FILES}
    (folder / "_corpus__sources.yml").write_text(awkward.contract(list(kinds.values())), encoding="utf-8")
    for file in FILES:
        path = settings.landing / "corpus" / file.kind.name / file.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.made)
    with rails_module.opened(settings) as rails:
        yield rails, ingest.land_night(rails, "corpus", clock.parse_as_of("2025-01-02"))


@pytest.fixture(scope="module")
def in_the_lake(landed: tuple[Rails, IngestSummary]) -> Mapping[str, tuple[awkward.Row, ...]]:
    """Name of a file → its rows, as text."""
    rails, _ = landed
    found: dict[str, list[awkward.Row]] = defaultdict(list)
    for kind in {file.kind.name: file.kind for file in FILES}.values():
        rows = rails.lake.connection.execute(
            f"select source_file, id::varchar, ({kind.shown})::varchar from lake.raw.{kind.name} order by row_number"
        ).fetchall()
        for name, *row in rows:
            found[f"{kind.name}/{name}"].append(tuple(row))
    return {name: tuple(rows) for name, rows in found.items()}


def test_the_corpus_is_large_enough() -> None:
    assert len(FILES) >= 150
    assert min(sum(file.lands is None for file in FILES), sum(file.lands is not None for file in FILES)) >= 50


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_was_written_lands_or_is_refused_in_a_sentence(
    landed: tuple[Rails, IngestSummary], in_the_lake: Mapping[str, tuple[awkward.Row, ...]], file: Awkward
) -> None:
    refused = {entry.file: entry.reason for entry in landed[1].quarantined}
    name = f"{file.kind.name}/{file.file}"
    if file.lands is not None:
        assert refused.get(name) is None
        assert in_the_lake.get(name, ()) == file.lands
    else:
        assert name not in in_the_lake
        assert file.refused in refused[name]
        assert "\n" not in refused[name]
        assert "Error" not in refused[name].split("(")[0]


def test_nothing_else_landed(landed: tuple[Rails, IngestSummary]) -> None:
    assert landed[1].files == sum(file.lands is not None for file in FILES)
    assert landed[1].rows == sum(len(file.lands or ()) for file in FILES)
    assert landed[1].left_alone == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_audit_says_what_it_is_or_judges_it(tmp_path: Path, file: Awkward) -> None:
    folder = tmp_path / "value=1"
    folder.mkdir()
    path = folder / f"{file.name}{file.ending}"
    path.write_bytes(file.made)
    try:
        audit(path, label="id", prediction_time="value")
    except BadInput as error:
        assert str(error).endswith((".", "?"))
        assert "\n" not in str(error)
    with duckdb.connect() as connection:
        try:
            copy, _ = formats.as_parquet(connection, path, tmp_path / "copy.parquet")
        except BadInput:
            return
        if copy != path:
            written = connection.execute(f"select * from {file_rows.parquet(copy)}")
            names = [name for name, *_ in written.description]
            same_values(file, path, names, written.fetchall())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_new_source_says_what_it_is_or_has_its_values(tmp_path: Path, file: Awkward) -> None:
    path = tmp_path / f"{file.name}{file.ending}"
    path.write_bytes(file.made)
    try:
        with sample.opened(path) as opened:
            if opened.table.form.kind != "csv":
                return
            names = [column.header for column in opened.table.columns]
            shown = ", ".join(f'"{column.name}"' for column in opened.table.columns)
            rows = opened.connection.execute(f"select {shown} from sample order by _line").fetchall()
    except BadInput as error:
        assert str(error).endswith((".", "?"))
        assert "\n" not in str(error)
        return
    same_values(file, path, names, rows, opened.table.form.delimiter, opened.table.form.encoding)


def same_values(
    file: Awkward, path: Path, names: list[str], rows: list[tuple[Any, ...]], delimiter: str = "", encoding: str = ""
) -> None:
    """Every value that was read says what the file says."""
    content = path.read_bytes()
    if file.name in OTHERWISE or content.startswith(b"\x1f\x8b"):
        return
    text = decoded(content, encoding)
    csv.field_size_limit(10_000_000)
    mark = delimiter or max(",;\t|", key=text.splitlines()[0].count)
    written = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if row][1:]
    if any(len(row) != len(names) for row in written):
        return
    assert len(written) == len(rows)
    for expected, found in zip(written, rows, strict=True):
        for cell, value in zip(expected, found, strict=True):
            assert means(cell, value), f"{cell!r} was read as {value!r}"


def decoded(content: bytes, encoding: str) -> str:
    """The text of a file, as far as it goes."""
    if encoding == "utf-16" or content.startswith(b"\xff\xfe"):
        return content.decode("utf-16", "ignore")
    try:
        return content.decode("utf-8-sig" if encoding in ("", "utf-8") else encoding)
    except UnicodeDecodeError:
        if not encoding:
            with suppress(UnicodeDecodeError):  # has more letters than Latin-1, and no other ones
                return content.decode("cp1252")
        return content.decode("latin-1")


def means(text: str, value: Any) -> bool:
    """Whether a value is what a text says; of an instant only that there is one, or that Python could hold none."""
    if value is None:
        is_nothing = text.strip() in ("", *sample.SPELLINGS)
        return is_nothing or re.search(r"infinity|^0000-|[(]BC[)]|^\d{5,}-|[+-]01$", text) is not None
    if isinstance(value, bool):
        return text.lower() in (TRUE if value else FALSE)
    if isinstance(value, int):
        return str(value) == text.strip()
    if isinstance(value, float):
        is_grouped = re.fullmatch(r"-?[1-9]\d{0,2}([.]\d{3})+,\d+", text) is not None
        number = float((text.replace(".", "") if is_grouped else text).replace(",", "."))
        return value == number or (math.isnan(value) and math.isnan(number))
    return str(value) == text if isinstance(value, str) else True
