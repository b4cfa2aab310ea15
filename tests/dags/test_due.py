"""What a stage has to do for which models: asked of the ledger for all at once, whatever the events say."""

from datetime import date, timedelta

import pytest

from tiltyard import clock
from tiltyard.edge import due, nights
from tiltyard.edge.due import Lot
from tiltyard.errors import BadInput
from tiltyard.govern import grants
from tiltyard.judge import operate
from tiltyard.rails import Rails
from tiltyard.records import (
    DriftSummary,
    FeaturesSummary,
    OperationAction,
    PromotionSummary,
    ShadowSummary,
    Summary,
    TableState,
)
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, load

SPEC = load(ROOT / "models" / "sla_breach")
OTHER = SPEC.model_copy(update={"name": "other"})
SPECS = (SPEC, OTHER)
TABLES = (SPEC.prediction.spine, *SPEC.prediction.features)


def day(number: int) -> date:
    return date(2016, 4, 1) + timedelta(days=number - 1)


def done(rails: Rails, summary: Summary, *days: int, models: tuple[Spec, ...] = SPECS) -> None:
    for number in days:
        for spec in models:
            rails.ledger.record_stage(spec.name, day(number), "done", summary)


def published(
    rails: Rails,
    number: int,
    held: tuple[str, ...] = (),
    good: int = 1,
    tables: tuple[str, ...] = TABLES,
    source: str = "",
) -> None:
    states = []
    for table in tables:
        body = {"night": day(number), "table": table, "snapshot": 1, "good_night": day(number), "state": "published"}
        if table in held:
            body |= {
                "state": "held",
                "good_night": day(good),
                "since": day(good + 1),
                "reason": "no rows",
                "cause": table,
            }
        states.append(TableState.from_json(body))
    rails.ledger.publish(states, day(number), "done", FeaturesSummary(snapshot=1), source)


def lot(rails: Rails, stage: str, *, as_of: int | None = None, named: bool = False, specs: tuple[Spec, ...] = SPECS):
    chosen = clock.midnight(day(as_of)) if as_of else None
    return due.lot(rails, stage, specs, chosen, named=named).models  # type: ignore[arg-type]


def days(*numbers: int) -> tuple[date, ...]:
    return tuple(day(number) for number in numbers)


def test_what_shadow_has_not_done_is_due_and_nothing_else(rails: Rails) -> None:
    assert lot(rails, "shadow") == {}
    for number in (1, 2, 3):
        published(rails, number)
    done(rails, ShadowSummary(), 1, 2)
    done(rails, ShadowSummary(), 3, models=(OTHER,))
    assert lot(rails, "shadow") == {SPEC.name: days(3)}
    done(rails, ShadowSummary(), 3)
    assert lot(rails, "shadow") == {}, "an event that comes twice finds nothing"
    published(rails, 3)
    assert lot(rails, "shadow") == {SPEC.name: days(3), "other": days(3)}, (
        "a night that was published again is done again"
    )


def by_hand(rails: Rails, action: OperationAction) -> None:
    operate.request(rails, SPEC, action, reason="an audit", by="ann", source="command line", now=clock.now())


def test_a_retired_model_owes_no_night_and_none_of_those_when_it_is_back(rails: Rails) -> None:
    for number in (1, 2, 3):
        published(rails, number)
    done(rails, ShadowSummary(), 1, 2)
    by_hand(rails, "retire")
    assert lot(rails, "shadow") == {"other": days(3)}
    assert nights.unplayed(rails, SPECS) == [OTHER]
    assert grants.taking_part(rails, SPECS, day(2)) == [SPEC, OTHER], "on the night of before it was there"
    assert grants.taking_part(rails, SPECS, day(3)) == [OTHER]
    done(rails, ShadowSummary(), 3, models=(OTHER,))
    by_hand(rails, "unretire")
    published(rails, 4)
    assert lot(rails, "shadow") == {SPEC.name: days(4), "other": days(4)}
    rails.ledger.record_stage(SPEC.name, day(4), "done", ShadowSummary())
    by_hand(rails, "retire")
    published(rails, 5)
    published(rails, 6)
    done(rails, ShadowSummary(), 4, 5, models=(OTHER,))
    rails.ledger.record_stage(SPEC.name, day(6), "failed", ShadowSummary())  # somebody named it by its name
    by_hand(rails, "unretire")
    published(rails, 7)
    assert lot(rails, "shadow")[SPEC.name] == days(7), "and none of the nights on which it was retired"


def test_the_sweep_goes_back_a_week_of_each_models_own_nights(rails: Rails) -> None:
    """Models of other sources may live in other years."""
    done(rails, ShadowSummary(), *range(1, 11))
    late = OTHER.model_copy(update={"name": "late"})
    done(rails, ShadowSummary(), 400, models=(late,))
    assert lot(rails, "drift", specs=(SPEC, late)) == {SPEC.name: days(*range(4, 11)), "late": days(400)}


def test_models_of_two_sources_start_on_the_nights_of_their_own_year(rails: Rails) -> None:
    """Neither the newest night of the one hides the nights of the other, nor does a night by itself read them all."""
    elsewhere = SPEC.prediction.model_copy(update={"spine": "spn_late_opened", "features": ("ftr_late__opened",)})
    late = SPEC.model_copy(update={"name": "late", "prediction": elsewhere})
    for number in range(1, 11):
        published(rails, number, source="tickets")
        published(rails, 1000 + number, tables=("spn_late_opened", "ftr_late__opened"), source="late")
    ready = due.ready_nights(rails, [SPEC, late])
    assert {name: tuple(sorted(nights)) for name, nights in ready.items()} == {
        SPEC.name: days(*range(4, 11)),
        "late": days(*range(1004, 1011)),
    }
    for night, starts in ((2, {SPEC.name}), (10, {SPEC.name}), (1002, {"late"}), (500, set())):
        ready = due.ready_nights(rails, [SPEC, late], day(night))
        assert {name: set(nights) for name, nights in ready.items() if nights} == {
            name: {day(night)} for name in starts
        }


def test_a_stage_follows_the_one_before_model_by_model(rails: Rails) -> None:
    done(rails, ShadowSummary(), 1, 2)
    rails.ledger.record_stage("other", day(3), "failed", ShadowSummary(reason="it leaks"))
    done(rails, PromotionSummary(), 1, models=(SPEC,))
    assert lot(rails, "promotion") == {SPEC.name: days(2), "other": days(1, 2)}
    rails.ledger.record_stage("other", day(1), "stopped", PromotionSummary())
    assert lot(rails, "promotion")["other"] == days(1, 2), "what was stopped is taken up again"


def test_a_night_by_hand(rails: Rails) -> None:
    with pytest.raises(BadInput, match="features has not finished the night of 2016-04-01 for any model"):
        lot(rails, "shadow", as_of=1)
    published(rails, 1)
    done(rails, ShadowSummary(), 1, models=(SPEC,))
    assert lot(rails, "shadow", as_of=1) == {SPEC.name: days(1), "other": days(1)}, "done or not"
    assert lot(rails, "drift", as_of=1) == {SPEC.name: days(1)}, "but not where there is nothing to look at"
    with pytest.raises(BadInput, match="shadow has not finished the night of 2016-04-01"):
        lot(rails, "drift", as_of=1, specs=(OTHER,), named=True)
    published(rails, 4)
    assert lot(rails, "shadow", as_of=3, named=True)["other"] == days(3), "no source had a run, and a person says so"
    with pytest.raises(BadInput, match="features has not finished the night of 2016-04-05"):
        lot(rails, "shadow", as_of=5, named=True)


def test_a_night_beyond_all_that_was_done_is_refused_to_whoever_asks_for_one_stage(rails: Rails) -> None:
    """It would find no rows, and be the model's newest night."""
    with pytest.raises(BadInput, match="features has not done the night of 2016-04-02, it has done none yet"):
        due.require_reached(rails, "shadow", SPEC, clock.midnight(day(2)))
    published(rails, 2)
    due.require_reached(rails, "shadow", SPEC, clock.midnight(day(1)))
    due.require_reached(rails, "shadow", SPEC, clock.midnight(day(2)))
    with pytest.raises(BadInput, match="the newest night that it has is that of 2016-04-02"):
        due.require_reached(rails, "shadow", SPEC, clock.midnight(day(3)))
    with pytest.raises(BadInput, match="shadow has not done the night of 2016-04-02"):
        due.require_reached(rails, "drift", SPEC, clock.midnight(day(2)))
    done(rails, ShadowSummary(), 2)
    due.require_reached(rails, "drift", SPEC, clock.midnight(day(2)))


def test_a_home_from_before_tables_had_states(rails: Rails) -> None:
    rails.ledger.record_stage("", day(1), "done", FeaturesSummary())
    rails.ledger.record_stage("", day(2), "stopped", FeaturesSummary())
    assert lot(rails, "shadow") == {SPEC.name: days(1), "other": days(1)}
    assert lot(rails, "shadow", as_of=1) == {SPEC.name: days(1), "other": days(1)}


def test_a_night_of_which_the_spine_has_no_rows_waits_and_is_caught_up_with_however_late(rails: Rails) -> None:
    spine = SPEC.prediction.spine
    published(rails, 1)
    done(rails, ShadowSummary(), 1)
    for number in range(2, 12):
        published(rails, number, held=(spine,))
        assert lot(rails, "shadow") == {}
        assert rails.ledger.stage_status("shadow", SPEC.name, day(number)) == "stopped", "nobody waits for it"
    published(rails, 12)
    assert lot(rails, "shadow") == {name: days(*range(2, 13)) for name in (SPEC.name, "other")}
    done(rails, ShadowSummary(), *range(2, 13))
    assert lot(rails, "shadow") == {}, "none is scored twice"


def test_a_night_on_which_no_source_had_a_run_is_done_with_the_next(rails: Rails) -> None:
    """The rows of its spine have an answer all the same, though late. Nothing goes further back than a week."""
    assert lot(rails, "shadow") == {}
    for number in (1, 4):
        published(rails, number)
    assert lot(rails, "shadow") == {name: days(1, 2, 3, 4) for name in (SPEC.name, "other")}
    done(rails, ShadowSummary(), 1, 2, 3, 4)
    assert lot(rails, "shadow") == {}
    published(rails, 24)
    assert lot(rails, "shadow") == {name: days(*range(17, 25)) for name in (SPEC.name, "other")}


def test_a_view_that_is_held_keeps_no_model_from_its_night(rails: Rails) -> None:
    published(rails, 1)
    done(rails, ShadowSummary(), 1)
    published(rails, 2, held=(SPEC.prediction.features[0],))
    assert lot(rails, "shadow") == {SPEC.name: days(2), "other": days(2)}


def test_what_is_left_of_what_was_planned(rails: Rails) -> None:
    done(rails, ShadowSummary(), 1, 2)
    done(rails, DriftSummary(), 1, models=(SPEC,))
    planned = due.lot(rails, "drift", SPECS, clock.midnight(day(1)))
    assert set(planned.before) == {SPEC.name}
    assert due.left(rails, "drift", planned).models == planned.models, "what was done before is not done again yet"
    assert due.unheard(rails, "drift", planned).models == planned.models
    rails.ledger.record_stage("other", day(1), "failed", DriftSummary(reason="it hangs"))
    assert due.unheard(rails, "drift", planned).models == {SPEC.name: days(1)}, "the other one has said something"
    done(rails, DriftSummary(), 1)
    assert due.left(rails, "drift", planned).models == {}


def test_a_model_that_came_later_owes_nothing_from_before_it_was_there(rails: Rails) -> None:
    """Neither a night that was settled, nor one on which its spine was held, nor one between, nor one by hand."""
    spine = SPEC.prediction.spine
    published(rails, 1)
    published(rails, 2, held=(spine,))
    for number in (3, 5, 6):
        published(rails, number)
    assert lot(rails, "shadow", specs=(SPEC,)) == {SPEC.name: days(1, 2, 3, 4, 5, 6)}
    rails.ledger.begin("other", day(7))
    assert lot(rails, "shadow", specs=(OTHER,)) == {}
    assert lot(rails, "shadow", as_of=6) == {SPEC.name: days(6)}
    assert lot(rails, "shadow", as_of=6, named=True)["other"] == days(6), "unless a person says so"
    assert due.ready_nights(rails, [OTHER], day(6)) == {"other": {}}
    published(rails, 7)
    assert lot(rails, "shadow", specs=(OTHER,)) == {"other": days(7)}


def test_a_model_that_was_hindcast_since_it_came_goes_on_from_its_first_record(rails: Rails) -> None:
    done(rails, ShadowSummary(), 1, models=(OTHER,))  # of a model of that name that was deleted
    for number in range(1, 7):
        published(rails, number)
    rails.ledger.begin("other", day(7))
    assert rails.ledger.first_nights([SPEC.name, "other"]) == {"other": day(7)}
    done(rails, ShadowSummary(), 4, 5, models=(OTHER,))
    assert rails.ledger.first_nights([SPEC.name, "other"]) == {"other": day(4)}
    assert lot(rails, "shadow", specs=(OTHER,)) == {"other": days(6)}


def test_the_governor_waits_on_no_night_for_a_model_that_came_later(rails: Rails) -> None:
    published(rails, 6, source=SPEC.source)
    assert grants.waiting(rails, SPECS, day(6), clock.now()) == ["other", SPEC.name]
    rails.ledger.begin("other", day(7))
    assert grants.waiting(rails, SPECS, day(6), clock.now()) == [SPEC.name]
    published(rails, 7, source=SPEC.source)
    assert grants.waiting(rails, SPECS, day(7), clock.now()) == ["other", SPEC.name]


@pytest.mark.parametrize(
    "models, size, sizes", [(1, 25, [1]), (26, 25, [13, 13]), (100, 25, [25] * 4), (5, 1, [1] * 5)]
)
def test_chunks_are_as_few_and_as_even_as_can_be(models: int, size: int, sizes: list[int]) -> None:
    whole = Lot(models={f"m{number:03}": days(1) for number in range(models)})
    parts = due.divided(whole, size)
    assert [len(part.models) for part in parts] == sizes
    assert sorted(name for part in parts for name in part.models) == sorted(whole.models)


def test_a_model_that_has_more_to_do_has_fewer_beside_it() -> None:
    whole = Lot(models={"a": days(1, 2, 3, 4), **{name: days(1) for name in "bcdefg"}})
    assert [sorted(part.models) for part in due.divided(whole, 5)] == [["a", "b"], ["c", "d", "e", "f", "g"]]


def test_a_label_names_the_first_and_the_last_and_before_them_those_that_failed() -> None:
    whole = Lot(models={name: days(1) for name in ("a", "b", "c", "d", "e")})
    assert whole.label() == "a … e (5)"
    assert whole.label(["d"]) == "failed: d; of a … e (5)"
    assert Lot(models={"a": days(1)}).label() == "a"
    assert Lot.from_json(whole.to_json()) == whole
