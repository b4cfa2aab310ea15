"""What a contract says of the files of a source, and what it may not say."""

from pathlib import Path

import pytest

from tiltyard.errors import BadInput
from tiltyard.prepare import contracts
from tiltyard.settings import Settings

HEAD = """version: 2
sources:
  - name: shop
    tables:
      - name: visit
        config:
          meta:
            tiltyard:
              event_time: {column: visited_at}
              available_at: ingested_at
"""
COLUMNS = """        columns:
          - {name: visited_at, data_type: timestamptz, config: {meta: {tiltyard: {header: Besuch am}}}}
          - {name: basket, data_type: double}
"""


def read(folder: Path, text: str) -> contracts.TableContract:
    path = folder / "dbt" / "models" / "staging" / "shop"
    path.mkdir(parents=True)
    (path / "_shop__sources.yml").write_text(text, encoding="utf-8")
    return contracts.read(Settings(home=folder, dbt=folder / "dbt"), "shop").tables[0]


def test_a_column_has_the_header_of_its_source_and_a_file_its_format(tmp_path: Path) -> None:
    form = "              format: {delimiter: ';', encoding: latin1, decimal: ','}\n"
    table = read(tmp_path, HEAD + form + COLUMNS)
    assert (table.header("visited_at"), table.header("basket")) == ("Besuch am", "basket")
    assert table.timing.format == contracts.Format(delimiter=";", encoding="iso8859-1", decimal=",")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "              format: {delimiter: ';;'}\n" + COLUMNS, "';;' parts no fields"),
        (HEAD + "              format: {encoding: klingon}\n" + COLUMNS, "'klingon' is no encoding"),
        (HEAD + "              format: {quote: x}\n" + COLUMNS, "format.quote"),
        (HEAD + COLUMNS.replace("Besuch am", "basket"), "'visited_at' and 'basket' are both the column 'basket'"),
    ],
)
def test_what_it_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
