"""The examples of the README and of /docs are answered by a model, and not by its safe default."""

import re
import zipfile
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from tiltyard import clock
from tiltyard.edge.quickstart import DEMOS
from tiltyard.serve import api
from tiltyard.settings import ROOT
from tiltyard.spec import find


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/serve.md"])
def test_a_page_asks_for_the_ticket_of_the_docs_of_the_service(page: str) -> None:
    assert set(re.findall(r"INC\d{7}", (ROOT / page).read_text())) == {api.ENTITY}


def test_every_row_of_an_example_names_whom_it_is_about() -> None:
    """Without an entity there is nothing to look up, and what lacks a feature is answered by a lower tier."""
    for route in (api.PREDICT, api.EXPLAIN):
        example = route["openapi_extra"]["requestBody"]["content"]["application/json"]["example"]  # type: ignore[index, call-overload]
        assert [row["entity_id"] for row in example["rows"]] == [api.ENTITY]  # type: ignore[index, call-overload, union-attr]


def test_the_ticket_is_there_and_fresh_on_the_last_night_that_is_played(data_mirror: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data_mirror / "incident" / "incident_event_log.zip") as archive:
        [name] = archive.namelist()
        log = archive.extract(name, tmp_path)
    rows = duckdb.execute(
        "select opened_at, caller_id, assignment_group from read_csv(?, all_varchar = true) where number = ? "
        "order by sys_mod_count::int",
        [log, api.ENTITY],
    ).fetchall()
    assert rows, "there is no such ticket"
    opened, caller, group = rows[0]
    at = datetime.strptime(f"{opened} +0000", "%d/%m/%Y %H:%M %z")
    last = clock.parse_as_of(DEMOS["incident"].last)
    fresh = find(ROOT / "models", api.MODEL).prediction.max_feature_age
    assert last - clock.NIGHT <= at < last
    assert fresh > clock.NIGHT
    assert "?" not in (caller, group), "its caller's and its group's features are found by these"
