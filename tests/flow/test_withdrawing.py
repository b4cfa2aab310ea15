"""A night of a mistyped year is taken back: it is the newest of nothing, nothing that landed is lost, and the ledger
says who took it back."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import bazaar, homes
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import board, cost_page, due, night_page, overview, recorded, source_page, status
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.judge import scoring, shadow
from tiltyard.ledger_tables import WITHDRAWN, metadata
from tiltyard.ledger_tables import withdrawing as withdrawing_statements
from tiltyard.prepare import features, possible
from tiltyard.rails import Rails
from tiltyard.records import (
    Cost,
    Decision,
    DefaultTask,
    EvidenceRecord,
    Promotion,
    PromotionSummary,
    ShadowSummary,
    Usage,
)
from tiltyard.settings import Settings
from tiltyard.spec import Spec, find, portfolio
from tiltyard.upkeep import holds, withdrawing

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
LAST, WRONG, FAR = FIRST + NIGHT, FIRST + 5 * NIGHT, FIRST + 60 * NIGHT
WRONG_DAY = WRONG.date()
WHY = "the year was mistyped"


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """Two nights as they should be, and what was delivered since, of which nothing has landed yet."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("right"), postgres_url)
    with rails_module.opened(settings) as opened:
        for number in (-1, 0):
            for source in ("shop", "web"):
                bazaar.deliver(settings, source, (FIRST + number * NIGHT).date())
            assert features.build_night(opened, FIRST + (number + 1) * NIGHT).unpublished == ()
        for number in (1, 2):
            bazaar.deliver(settings, "shop", (FIRST + number * NIGHT).date())
    return settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, right: Settings) -> Settings:
    """After that one that is days ahead has landed what was there, and was scored."""
    settings = homes.copied(right, tmp_path_factory.mktemp("made"))
    with rails_module.opened(settings) as opened:
        opened.ledger.open_default_task(
            DefaultTask(model="till", opened=LAST.date(), since=FIRST.date(), repeats=None, facts={})
        )
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


def test_what_only_followed_from_a_night_goes_with_it_and_all_is_as_before(tmp_path: Path, right: Settings) -> None:
    """A night far ahead makes shadow go through the week before it, and costs: pages, status and bills are afterwards
    what they were, and the next night that is due is done as if nothing had been."""
    with rails_module.opened(homes.copied(right, tmp_path)) as rails:
        specs = portfolio(rails.settings)
        for as_of in (FIRST, LAST):
            for spec in specs:
                shadow.shadow_night(rails, spec, as_of)
            rails.ledger.accounts.add(costs(as_of.date()))
        before = documents(rails, specs)

        with suppress(CheckFailed):
            features.build_night(rails, FAR)
        due.lot(rails, "shadow", specs)
        with suppress(CheckFailed):
            shadow.score(rails, specs[0], FAR)
        rails.ledger.accounts.add([*costs(FAR.date()), costs((FAR - NIGHT).date())[1]])
        between = {(FAR - number * NIGHT).date() for number in range(1, 7)}
        assert between <= rails.ledger.worked_on(LAST.date(), FAR.date()).keys(), "shadow has gone through them"
        assert documents(rails, specs).keys() == before.keys()
        assert {name for name, text in documents(rails, specs).items() if text != before[name]} == before.keys()

        taken = withdrawing.withdraw(rails, FAR.date(), by="ann", reason=WHY)
        assert taken.nights[0] == FAR.date()
        assert {*taken.followed} == {*taken.nights[1:]} >= between
        assert (taken.sources, taken.rows["cost"]) == (("shop", "web"), 3)
        after = documents(rails, specs)
        for name, text in before.items():
            assert after[name] == text, name
        assert possible.next_due(rails, "shop", FAR).date() == (LAST + NIGHT).date()
        again = withdrawing.withdraw(rails, FAR.date(), by="ann", reason=WHY)
        assert again.is_empty
        assert "nothing of it to take back any more" in withdrawing.summary(again)


def costs(night: date) -> list[Cost]:
    """What a night of the shop and its till has used."""
    usage = Usage(cpu_s=2.0, wall_s=3.0)
    return [
        Cost(stage="features", name="shop", night=night, usage=usage),
        Cost(stage="shadow", name="till", night=night, usage=usage),
    ]


def documents(rails: Rails, specs: Sequence[Spec]) -> dict[str, str]:
    """Every page and document of what has come to be, as text."""
    found: dict[str, object] = {"costs": cost_page.read(rails, specs)}
    found["portfolio"] = portfolio_board = board.read(rails, specs, FAR)
    found["head of the portfolio"] = night_page.head(rails, portfolio_board)
    found |= {f"page of {source}": source_page.read(rails, specs, source) for source in ("shop", "web")}
    for spec in specs:
        found[f"status of {spec.name}"] = status.status_or_reason(rails, spec)
        nights = overview._nights(rails, spec, recorded.newest(rails, spec) or FAR)
        found[f"nights of {spec.name}"] = nights
    return {name: str(document) for name, document in found.items()}


def test_all_nights_from_one_on_are_taken_back_and_it_goes_on_where_it_was_killed(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = rails.ledger.withdraw, []

    def killed(night: date, *args: Any, **values: Any) -> dict[str, int]:
        if done:
            raise KeyboardInterrupt
        done.append(night)
        return whole(night, *args, **values)

    monkeypatch.setattr(rails.ledger, "withdraw", killed)
    with pytest.raises(KeyboardInterrupt):
        withdrawing.withdraw(rails, LAST.date(), onwards=True, by="ann", reason=WHY)
    assert done == [WRONG.date()], "the newest goes first"
    monkeypatch.undo()
    taken = withdrawing.withdraw(rails, LAST.date(), onwards=True, by="ann", reason=WHY)
    assert taken.nights == (LAST.date(),)
    assert rails.ledger.newest_attempts("features", ["shop", "web"]) == dict.fromkeys(("shop", "web"), FIRST.date())
    assert [event.night for event in rails.ledger.events(kind=WITHDRAWN)] == [WRONG.date(), LAST.date()]
    assert withdrawing.withdraw(rails, LAST.date(), onwards=True, by="ann", reason=WHY).is_empty


def test_a_source_that_did_not_have_the_night_is_not_named(tmp_path: Path, right: Settings) -> None:
    with rails_module.opened(homes.copied(right, tmp_path)) as rails:
        features.build_night(rails, LAST + NIGHT, ["shop"])
        taken = withdrawing.withdraw(rails, (LAST + NIGHT).date(), by="ann", reason=WHY)
    assert (taken.sources, taken.models) == (("shop",), ())
    [said, *_] = withdrawing.summary(taken).splitlines()
    assert said.startswith("The night of 2025-03-06 is taken back, of shop: ")


def test_the_command_line_takes_one_night_or_all_from_one_on(rails: Rails) -> None:
    def said(*words: str, code: int = 2) -> str:
        done = bazaar.run(rails, "nights", "withdraw", *words, "--reason", WHY, code=code)
        return " ".join((done.stdout + done.stderr).split())

    assert "Name one night" in said()
    assert "Name one night" in said("2025-03-09", "--from", "2025-03-09")
    assert "There is no night of 2099-05-31 to take back, and never was" in said("2099-05-31")
    taken = said("--from", "2025-03-09", code=0)
    assert "The night of 2025-03-09 is taken back, of shop, web, till: " in taken


def test_what_may_not_be_taken_back_is_said(rails: Rails) -> None:
    def refused(why: str, night: date = WRONG_DAY, reason: str = WHY, **named: Any) -> None:
        before = of_wrong_night(rails)
        with pytest.raises(BadInput, match=why):
            withdrawing.withdraw(rails, night, by="ann", reason=reason, **named)
        assert of_wrong_night(rails) == before

    refused("for a reason", reason=" ")
    refused("There is no source 'shp'", source="shp")
    refused(
        r"is not the newest of .*: that of 2025-03-09 stands on it. tiltyard nights withdraw --from 2025-03-05 takes",
        night=LAST.date(),
    )
    refused("There is no night of 2099-05-31 to take back, and never was: the newest", night=date(2099, 5, 31))
    refused("There is no night of 2025-03-08 to take back, and never was: the newest", night=date(2025, 3, 8))
    refused("no night from 2099-05-31 on to take back", night=date(2099, 5, 31), onwards=True)
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
        "night_withdrawal": "it says who took it back",
    }
    of_nights = {table.name for table in metadata.sorted_tables if "night" in table.columns}
    taken = {name for name, _ in withdrawing_statements(WRONG_DAY, ["till"], ["shop"], ["raw.sale"], True)}
    assert of_nights - taken == stays.keys()
