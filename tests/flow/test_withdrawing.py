"""A night of a mistyped year is taken back: it is the newest of nothing, nothing that landed is lost, and the ledger
says who took it back."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests import bazaar, homes
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.judge import scoring
from tiltyard.ledger_tables import WITHDRAWN, metadata
from tiltyard.ledger_tables import withdrawing as withdrawing_statements
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.records import Decision, DefaultTask, EvidenceRecord, Promotion, PromotionSummary, ShadowSummary
from tiltyard.settings import Settings
from tiltyard.spec import find
from tiltyard.upkeep import holds, withdrawing

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
LAST, WRONG = FIRST + NIGHT, FIRST + 5 * NIGHT
WRONG_DAY = WRONG.date()
WHY = "the year was mistyped"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """Two nights as they should be; then one that is weeks ahead has landed what was there, and was scored."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("made"), postgres_url)
    with rails_module.opened(settings) as opened:
        for number in (-1, 0):
            for source in ("shop", "web"):
                bazaar.deliver(settings, source, (FIRST + number * NIGHT).date())
            assert features.build_night(opened, FIRST + (number + 1) * NIGHT).unpublished == ()
        opened.ledger.open_default_task(
            DefaultTask(model="till", opened=LAST.date(), since=FIRST.date(), repeats=None, facts={})
        )
        for number in (1, 2):
            bazaar.deliver(settings, "shop", (FIRST + number * NIGHT).date())
        features.build_night(opened, WRONG)
        scoring.score_night(opened, find(settings.models, "till"), WRONG)
        opened.ledger.record_stage("till", WRONG.date(), "done", ShadowSummary())
        opened.ledger.record_stage("till", WRONG.date(), "done", PromotionSummary())
        opened.ledger.add_decision(held(WRONG.date()))
        opened.ledger.recover_default_task("till", LAST.date(), WRONG.date())
    return settings


@pytest.fixture
def rails(tmp_path: Path, made: Settings) -> Iterator[Rails]:
    with rails_module.opened(homes.copied(made, tmp_path)) as opened:
        yield opened


def held(night: date) -> Decision:
    return Decision(
        model="till", night=night, challenger=1, champion=None, verdict="hold", reasons=("too few",),
        evidence=EvidenceRecord(model="till", night=night),
    )  # fmt: skip


def count(rails: Rails, query: str) -> int:
    [row] = rails.lake.connection.execute(query).fetchall()
    return int(row[0])


def of_wrong_night(rails: Rails) -> dict[str, int]:
    """Table of the lake → its rows of the wrong night."""
    tables = rails.lake.connection.execute(
        "select table_schema || '.' || table_name, column_name from information_schema.columns "
        "where table_catalog = 'lake' and column_name in ('night', 'landed_night')"
    ).fetchall()
    found = {name: count(rails, f"select count(*) from lake.{name} where {column} = '{WRONG:%Y-%m-%d}'")
             for name, column in tables}  # fmt: skip
    return {name: rows for name, rows in found.items() if rows}


def test_a_night_is_taken_back_whole_and_nothing_that_landed_is_lost(rails: Rails) -> None:
    sales = count(rails, "select count(*) from lake.raw.sale")
    assert {"raw.sale", "ops.check_result", "ops.landed_file"} <= of_wrong_night(rails).keys()
    assert rails.ledger.newest_attempts("features", ["shop"]) == {"shop": WRONG.date()}

    taken = withdrawing.withdraw(rails, WRONG.date(), by="ann", reason=WHY)
    assert taken.landed == 2
    assert {"stage_run", "publication", "decision", "default_task_end", "ops.check_result"} <= taken.rows.keys()

    assert of_wrong_night(rails) == {}
    assert count(rails, "select count(*) from lake.raw.sale") == sales
    dated = rails.lake.connection.execute(
        "select distinct source_file, landed_night::varchar from lake.raw.sale order by 1 desc limit 2"
    ).fetchall()
    assert dated == [("2025-03-06.csv", "2025-03-07"), ("2025-03-05.csv", "2025-03-06")]
    assert rails.ledger.newest_attempts("features", ["shop", "web"]) == dict.fromkeys(("shop", "web"), LAST.date())
    assert rails.ledger.newest_attempts("shadow", ["till"]) == {}
    assert {state.night for state in rails.ledger.table_states()} == {LAST.date()}
    assert rails.ledger.decisions("till") == []
    [task] = rails.ledger.default_tasks("till")
    assert task.is_open, "the stretch on the safe default has not ended"
    assert not (rails.settings.reports / f"checks/shop/{WRONG:%Y-%m-%d}.html").exists()

    [event] = rails.ledger.events(kind=WITHDRAWN)
    assert (event.night, event.detail["by"], event.detail["reason"]) == (WRONG.date(), "ann", WHY)
    [decision] = event.detail["taken"]["decision"]  # type: ignore[index, call-overload]
    assert decision["reasons"] == ["too few"]

    again = withdrawing.withdraw(rails, WRONG.date(), by="ann", reason=WHY)
    assert again.is_empty
    assert len(rails.ledger.events(kind=WITHDRAWN)) == 1

    for source in ("web",):
        bazaar.deliver(rails.settings, source, (FIRST + NIGHT).date())
    assert features.build_night(rails, LAST + NIGHT).unpublished == ()
    assert rails.ledger.newest_attempts("features", ["shop"]) == {"shop": (LAST + NIGHT).date()}


def test_a_night_of_one_model_is_taken_back_and_no_other(rails: Rails) -> None:
    taken = withdrawing.withdraw(rails, WRONG.date(), model="till", by="ann", reason=WHY)
    assert taken.sources == ()
    assert rails.ledger.newest_attempts("shadow", ["till"]) == {}
    assert rails.ledger.newest_attempts("features", ["shop"]) == {"shop": WRONG.date()}


def test_what_may_not_be_taken_back_is_said(rails: Rails) -> None:
    def refused(why: str, night: date = WRONG_DAY, reason: str = WHY, **named: str) -> None:
        before = of_wrong_night(rails)
        with pytest.raises(BadInput, match=why):
            withdrawing.withdraw(rails, night, by="ann", reason=reason, **named)
        assert of_wrong_night(rails) == before

    refused("for a reason", reason=" ")
    refused("There is no source 'shp'", source="shp")
    refused(r"is not the newest of .*: that of 2025-03-09 stands on it", night=LAST.date())
    hold = holds.hold(rails, None, None, by="ann", reason="case 17")
    refused("The legal hold 1?.* stands")
    holds.release(rails, hold.id, by="ann", reason="closed")
    rails.ledger.claim_promotion(
        Promotion(model="till", version=1, night=WRONG.date(), requested_by="ann", approval={"needed": False})
    )
    refused("has changed who is champion of till")


def test_of_every_table_of_the_ledger_it_is_known_whether_its_nights_go(rails: Rails) -> None:
    """One that is added with a night has to be taken back, or to be named here with why it stays."""
    stays = {
        "version": "trained as of it, and named",
        "promotion": "refused",
        "operation_end": "refused",
        "event": "what happened has happened",
        "cost": "what was spent is spent",
    }
    of_nights = {table.name for table in metadata.sorted_tables if "night" in table.columns}
    taken = {name for name, _ in withdrawing_statements(WRONG_DAY, ["till"], ["shop"], ["raw.sale"], True)}
    assert of_nights - taken == stays.keys()
