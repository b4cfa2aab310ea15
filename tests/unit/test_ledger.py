"""The ledger: one promotion per night, one verdict per challenger, and roles derived from earlier nights."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from tiltyard import clock, ledger_tables, postgres
from tiltyard import ledger as ledger_module
from tiltyard.edge import due
from tiltyard.ledger import Ledger
from tiltyard.rails import Rails
from tiltyard.records import (
    AcceptedRelease,
    Decision,
    EvidenceRecord,
    FeaturesSummary,
    GovernorAction,
    GovernorSummary,
    Promotion,
    Publication,
    ShadowSummary,
    TableState,
    Version,
    VersionFacts,
    Watch,
)
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, load
from tiltyard.succession import Roles

FIRST = date(2016, 4, 1)
AT = datetime(2016, 4, 1, tzinfo=UTC)


def night(number: int) -> date:
    return FIRST + timedelta(days=number - 1)


@pytest.fixture
def ledger(rails: Rails) -> Ledger:
    return rails.ledger


def train(ledger: Ledger, version: int, on: int, facts: VersionFacts | None = None) -> None:
    trained = Version(
        model="m",
        version=version,
        night=night(on),
        inputs=f"inputs-{version}",
        run_id=f"run-{version}",
        digests={},
        facts=facts or VersionFacts(),
        requested_by="test",
    )
    ledger.add_version(trained)


def test_bounds_are_those_of_the_first_version_that_learned_them_of_this_label(ledger: Ledger) -> None:
    promise = {
        "name": "m", "entity": "customer", "owner": "tests", "tier": 3, "source": "test",
        "prediction": {"spine": "spn_x", "features": ["ftr_customer__x"]},
        "label": {"table": "lbl_x", "kind": "number", "horizon": "3d"},
        "estimator": {"class": "xgboost.XGBRegressor"}, "light": {"class": "sklearn.linear_model.Ridge"},
        "gate": {"metric": "absolute_error"}, "fallback": {"safe_default": 1},
    }  # fmt: skip
    spec = Spec.model_validate(promise)
    other = Spec.model_validate({**promise, "label": {"table": "lbl_y", "kind": "number", "horizon": "3d"}})
    said = Spec.model_validate({**promise, "label": {"table": "lbl_x", "bounds": [0, 5], "horizon": "3d"}})
    assert ledger.bounded(spec) is spec, "nothing was trained yet"
    for number, (of, bounds) in enumerate([(other, (0.0, 3.0)), (spec, (0.0, 9.0)), (spec, (0.0, 9.5))], start=1):
        facts = VersionFacts(bounds=bounds, label=of.label.digest)
        train(ledger, version=number, on=number, facts=facts)
        if number == 1:
            assert ledger.bounded(spec).target.bounds == (0, 3), "another label's, until this one is trained on"
    assert ledger.bounded(spec).target.bounds == (0, 9)
    assert ledger.bounded(other).target.bounds == (0, 3)
    assert ledger.bounded(said) is said


def promotion(version: int, on: int, replaced: int | None = None) -> Promotion:
    return Promotion(
        model="m",
        version=version,
        night=night(on),
        replaced=replaced,
        requested_by="test",
        approved_by=None,
        approval={},
    )


def decision(challenger: int, on: int, verdict: str) -> Decision:
    return Decision(
        model="m",
        night=night(on),
        challenger=challenger,
        champion=None,
        verdict=verdict,
        reasons=(verdict,),
        evidence=EvidenceRecord(model="m", night=night(on)),
    )


def test_roles_at_a_night_are_decided_on_earlier_nights(ledger: Ledger) -> None:
    # night      1        2        3          4          5          6          7
    # trained    v1       v2                             v3
    # decided                      v1 ↑       v2 ↑                  v3 ✗
    train(ledger, 1, on=1)
    train(ledger, 2, on=2)
    assert ledger.claim_promotion(promotion(1, on=3))
    assert ledger.claim_promotion(promotion(2, on=4, replaced=1))
    train(ledger, 3, on=5)
    ledger.add_decision(decision(3, on=6, verdict="reject"))

    roles = {number: ledger.roles("m", night(number)) for number in range(1, 8)}
    assert roles[1] == Roles(champion=None, previous=None, challengers=(), first=None)
    assert roles[2] == Roles(champion=None, previous=None, challengers=(1,), first=1)
    assert roles[3] == Roles(champion=None, previous=None, challengers=(1, 2), first=1)
    assert roles[4] == Roles(champion=1, previous=None, challengers=(2,), first=1)
    assert roles[5] == Roles(champion=2, previous=1, challengers=(), first=1)
    assert roles[6] == Roles(champion=2, previous=1, challengers=(3,), first=1)
    assert roles[7] == Roles(champion=2, previous=1, challengers=(), first=1)
    assert roles[6].scored == {2: "champion", 1: "previous", 3: "challenger"}


def test_a_damaged_record_of_a_promotion_or_a_rollback_takes_nobody_out_of_service(ledger: Ledger) -> None:
    for version, on in ((1, 1), (2, 3)):
        train(ledger, version, on=on)
    ledger.claim_promotion(promotion(1, on=2))
    ledger.claim_promotion(promotion(2, on=4, replaced=1))
    assert ledger.add_watch(watched(2, on=6, verdict="rollback", previous=1))
    before = ledger.roles("m", night(7))
    assert (before.champion, before.previous) == (1, None)
    with ledger.engine.begin() as connection:
        for table in ("promotion", "watch"):
            connection.execute(sa.text(f"alter table {table} disable trigger user"))
        connection.execute(sa.text("update promotion set approval = '7'::jsonb"))
        connection.execute(sa.text("update watch set evidence = '7'::jsonb, reasons = '7'::jsonb"))
    assert ledger.roles("m", night(7)) == before
    with pytest.raises(ValidationError):
        ledger.promotions("m")


def test_models_do_not_see_each_other(ledger: Ledger) -> None:
    train(ledger, 1, on=1)
    assert ledger.claim_promotion(promotion(1, on=2))

    assert ledger.roles("another", night(9)) == Roles(champion=None, previous=None, challengers=(), first=None)


@pytest.mark.parametrize("same", ["version", "night"])
def test_exactly_one_of_many_claims_the_promotion(ledger: Ledger, same: str) -> None:
    train(ledger, 1, on=1)
    claims = [promotion(1, on=number) if same == "version" else promotion(number, on=2) for number in range(2, 10)]
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda claim: ledger.claim_promotion(claim), claims))

    assert won.count(True) == 1
    assert len(ledger.promotions("m")) == 1


def test_a_verdict_stands_once_given(ledger: Ledger) -> None:
    first = ledger.add_decision(decision(1, on=2, verdict="hold"))
    second = ledger.add_decision(decision(1, on=2, verdict="promote"))

    assert second == first
    assert [row.verdict for row in ledger.decisions("m")] == ["hold"]


def test_reads_stop_at_the_night_that_asks(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.add_decision(decision(number, on=number, verdict="hold"))
        ledger.request_retrain("m", night(number), ["drift"])
    assert ledger.claim_promotion(promotion(3, on=3))

    assert [row.night for row in ledger.decisions("m", until=night(2))] == [night(1), night(2)]
    assert [row.night for row in ledger.retrains("m", until=night(2))] == [night(1), night(2)]
    assert ledger.promotions("m", until=night(2)) == []


def test_a_stage_record_says_how_the_last_attempt_went(ledger: Ledger) -> None:
    ledger.record_stage("m", night(1), "failed", ShadowSummary(note="killed"))
    ledger.record_stage("m", night(1), "done", ShadowSummary(rows=3))
    runs = ledger.stage_runs(ShadowSummary, "m")

    assert list(runs) == [night(1)]
    assert (runs[night(1)].status, runs[night(1)].summary) == ("done", ShadowSummary(rows=3))


def test_a_retrain_is_asked_for_once_a_night(ledger: Ledger) -> None:
    ledger.request_retrain("m", night(1), ["drift"])
    ledger.request_retrain("m", night(1), ["drift", "decay"])

    assert [row.reasons for row in ledger.retrains("m")] == [("drift", "decay")]


def test_events_are_kept_in_order_and_found_by_kind(ledger: Ledger) -> None:
    ledger.add_event("forged_approval", "m", night(1), {"by": "somebody"})
    ledger.add_event("alias_moved", "m", night(2), {})

    assert [event.kind for event in ledger.events("m")] == ["forged_approval", "alias_moved"]
    assert [event.detail for event in ledger.events(kind="forged_approval")] == [{"by": "somebody"}]


def test_an_event_holds_what_an_error_quotes(ledger: Ledger) -> None:
    """PostgreSQL holds no NUL, no half of a surrogate pair and no NaN in a jsonb."""
    detail = {"reason": "a\0b \ud800 \U0001f600 \\u0000", "at\0": [float("nan"), {"rate": float("inf"), "rows": 3}]}
    ledger.add_event("odd", "m", night(1), detail)
    (odd,) = ledger.events(kind="odd")
    assert odd.detail == {
        "reason": "a\ufffdb ? \U0001f600 \\u0000",
        "at\ufffd": [None, {"rate": None, "rows": 3}],
    }


def watched(champion: int, on: int, verdict: str, previous: int | None = None) -> Watch:
    return Watch(
        model="m",
        night=night(on),
        champion=champion,
        previous=previous,
        verdict=verdict,
        reasons=(verdict,),
        evidence=EvidenceRecord(model="m", night=night(on)),
    )


def test_a_rollback_puts_back_what_the_promotion_replaced(ledger: Ledger) -> None:
    for version, on in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9)):
        train(ledger, version, on)
    ledger.claim_promotion(promotion(1, on=3))
    ledger.claim_promotion(promotion(2, on=5, replaced=1))
    ledger.claim_promotion(promotion(4, on=6, replaced=2))
    assert ledger.add_watch(watched(4, on=8, verdict="rollback", previous=2))
    assert ledger.roles("m", night(8)) == Roles(champion=4, previous=2, challengers=(), first=1)
    assert ledger.roles("m", night(9)) == Roles(champion=2, previous=1, challengers=(), first=1)
    after = ledger.roles("m", night(10))
    assert after.challengers == (5,), "neither what was sent back nor what it had passed over challenges again"
    assert ledger.claim_promotion(promotion(5, on=12, replaced=2))
    assert ledger.roles("m", night(13)) == Roles(champion=5, previous=2, challengers=(), first=1)
    assert [(change.kind, change.version) for change in ledger.changes("m")][-2:] == [("rollback", 4), ("promotion", 5)]


def test_a_watch_is_recorded_once_a_night_and_a_rollback_once(ledger: Ledger) -> None:
    train(ledger, 1, on=1)
    ledger.claim_promotion(promotion(1, on=3))
    assert ledger.add_watch(watched(1, on=5, verdict="keep")).verdict == "keep"
    assert ledger.add_watch(watched(1, on=5, verdict="rollback")).verdict == "keep", "the first record stands"
    assert ledger.add_watch(watched(1, on=6, verdict="rollback")).verdict == "rollback"
    assert ledger.add_watch(watched(1, on=6, verdict="rollback")).night == night(6)
    assert ledger.add_watch(watched(1, on=7, verdict="rollback")) is None
    assert [event.night for event in ledger.events("m", "rolled_back")] == [night(6)]


def test_a_night_does_not_promote_and_roll_back(ledger: Ledger) -> None:
    for version in (1, 2, 3):
        train(ledger, version, on=version)
    ledger.claim_promotion(promotion(1, on=4))
    assert ledger.add_watch(watched(1, on=6, verdict="rollback"))
    assert not ledger.claim_promotion(promotion(2, on=6)), "the night has rolled back"
    assert not ledger.claim_promotion(promotion(2, on=5)), "and a later night than this one has"
    assert ledger.claim_promotion(promotion(2, on=7))
    assert ledger.add_watch(watched(2, on=7, verdict="rollback")) is None, "the night has promoted"
    assert ledger.add_watch(watched(2, on=7, verdict="keep")) is not None
    assert len(ledger.events("m", "rolled_back")) == 1


def test_of_promotion_and_rollback_at_once_one_wins(ledger: Ledger) -> None:
    for version in range(1, 9):
        train(ledger, version, on=version)
    ledger.claim_promotion(promotion(1, on=10))
    claims = [lambda: bool(ledger.claim_promotion(promotion(2, on=12, replaced=1)))] * 4
    claims += [lambda: bool(ledger.add_watch(watched(1, on=12, verdict="rollback")))] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda claim: claim(), claims))
    assert [change.night for change in ledger.changes("m")] == [night(10), night(12)]


def test_what_is_in_service_is_the_newest_good_batch_and_the_tables_that_are_not_good(rails: Rails) -> None:
    ledger, first, second = rails.ledger, date(2025, 2, 3), date(2025, 2, 4)

    def good(table: str, night: date, snapshot: int) -> TableState:
        return TableState(night=night, table=table, state="published", snapshot=snapshot, good_night=night)

    assert ledger.publication() is None
    ledger.record_stage("", first, "done", FeaturesSummary(snapshot=3))
    assert ledger.publication() == Publication(snapshot=3), "a home from before tables had states"
    ledger.publish([good("a", first, 5), good("b", first, 5)], first, "done", FeaturesSummary(snapshot=5))
    assert ledger.publication() == Publication(snapshot=5)

    held = TableState(
        night=second, table="b", state="held", snapshot=5, good_night=first, since=second, reason="no", cause="b"
    )
    ledger.publish([good("a", second, 9), held], second, "done", FeaturesSummary(snapshot=9))
    assert ledger.publication() == Publication(snapshot=9, tables={"b": held})
    assert ledger.unpublished({"b"}) == {"b": {second}}
    assert [state.state for state in ledger.table_states()] == ["published", "held"]
    assert ledger.table_states(until=first) == [good("a", first, 5), good("b", first, 5)]

    ledger.publish([good("a", first, 11), good("b", first, 11)], first, "done", FeaturesSummary(snapshot=11))
    assert ledger.publication() == Publication(snapshot=11, tables={"b": held}), "a past night lets nothing go"
    ledger.publish([good("a", second, 12), good("b", second, 12)], second, "done", FeaturesSummary(snapshot=12))
    assert ledger.publication() == Publication(snapshot=12)
    assert ledger.unpublished({"b"}) == {}


def test_a_night_that_is_published_after_a_later_one_was_held_may_be_read(rails: Rails) -> None:
    """Of a source that still delivers tonight's run may come before that of last night, which somebody asks for."""
    ledger, nights = rails.ledger, [date(2025, 2, day) for day in (3, 4, 5)]
    spec = load(ROOT / "models" / "churn")
    spine = spec.prediction.spine

    def publish(night: date, snapshot: int, state: TableState) -> None:
        ledger.publish([state], night, "done", FeaturesSummary(snapshot=snapshot))

    def good(night: date, snapshot: int) -> TableState:
        return TableState(night=night, table=spine, state="published", snapshot=snapshot, good_night=night)

    publish(nights[0], 5, good(nights[0], 5))
    held = TableState(
        night=nights[2], table=spine, state="held", snapshot=5, good_night=nights[0], since=nights[2], reason="no rows",
        cause=spine,
    )  # fmt: skip
    publish(nights[2], 7, held)

    def waiting() -> set[date]:
        publication = ledger.publication()
        assert publication is not None
        return set(due.waiting_nights(publication, spec, nights))

    assert waiting() == {nights[1], nights[2]}
    publish(nights[1], 9, good(nights[1], 9))
    assert waiting() == {nights[2]}, "its rows are there"
    publication = ledger.publication()
    assert publication is not None
    assert (publication.of(spine), publication.until(spine)) == (9, clock.midnight(nights[1])), "and no later ones"


def test_the_newest_states_are_read_by_index_however_many_nights_there_are(rails: Rails) -> None:
    for day in range(40):
        night = date(2025, 1, 1) + timedelta(days=day)
        states = [
            TableState(night=night, table=f"t{table:02}", state="published", snapshot=day, good_night=night)
            for table in range(50)
        ]
        rails.ledger.publish(states, night, "done", FeaturesSummary(snapshot=day))
    assert rails.ledger.publication() == Publication(snapshot=39)
    with rails.ledger.engine.begin() as connection:
        connection.execute(sa.text("analyze publication"))
        connection.execute(sa.text("set local enable_seqscan = off"))
        before = connection.scalar(sa.text("select pg_stat_get_xact_tuples_fetched('publication'::regclass)"))
        rows = connection.execute(ledger_tables.newest_states(None)).all()
        fetched = connection.scalar(sa.text("select pg_stat_get_xact_tuples_fetched('publication'::regclass)")) - before
    assert len(rows) == 50
    assert fetched <= 3 * 50 + 2, "a few rows of each table, of 40 nights"


def test_features_are_recorded_under_their_source_and_older_records_are_everybody_s(rails: Rails) -> None:
    ledger, first, second = rails.ledger, date(2025, 2, 3), date(2025, 2, 4)
    ledger.record_stage("", first, "done", FeaturesSummary(snapshot=3))
    assert ledger.stage_status("features", "shop", first) == "done"
    assert ledger.finished("features", "web") == {first}
    ledger.record_stage("shop", first, "stopped", FeaturesSummary(snapshot=4))
    ledger.record_stage("web", second, "done", FeaturesSummary(snapshot=5))
    assert ledger.stage_statuses("features", "shop") == {first: "stopped"}
    assert ledger.stage_statuses("features", "web") == {first: "done", second: "done"}
    runs = {(name, night): ledger.features_run(name, night) for name in ("shop", "web") for night in (first, second)}
    assert {key: run and run.summary.snapshot for key, run in runs.items()} == {
        ("shop", first): 4, ("shop", second): None, ("web", first): 3, ("web", second): 5,
    }  # fmt: skip
    newest = {name: ledger.newest_published(name) for name in (None, "shop", "web")}
    assert {name: run and run.summary.snapshot for name, run in newest.items()} == {None: 5, "shop": 3, "web": 5}
    assert ledger.published_nights() == {first, second}
    assert ledger.publications() == {first: {3, 4}, second: {5}}
    before = ledger.last_features_run("shop", before=second)
    assert before is not None
    assert before.status == "stopped"


def test_a_source_publishes_its_own_tables_and_changes_no_other(rails: Rails) -> None:
    ledger, night = rails.ledger, date(2025, 2, 3)

    def good(table: str, snapshot: int) -> TableState:
        return TableState(night=night, table=table, state="published", snapshot=snapshot, good_night=night)

    ledger.publish([good("a", 5)], night, "done", FeaturesSummary(snapshot=5), "shop")
    ledger.publish([good("b", 7)], night, "done", FeaturesSummary(snapshot=7), "web")
    assert ledger.publication() == Publication(snapshot=7, tables={"a": good("a", 5)})
    assert ledger.publication().part(["a"]) == Publication(snapshot=5), "nothing of it stands apart"
    assert ledger.publication().part(["a", "b"]).tables == {"a": good("a", 5)}
    ledger.publish([good("a", 9)], night, "done", FeaturesSummary(snapshot=9), "shop")
    assert ledger.publication() == Publication(snapshot=9, tables={"b": good("b", 7)})


def test_when_tables_were_settled_is_asked_of_their_newest_nights(rails: Rails) -> None:
    ledger = rails.ledger
    for number in (1, 2, 4):
        good = TableState(night=night(number), table="a", state="published", snapshot=number, good_night=night(number))
        held = TableState(night=night(number), table="b", state="held", reason="no rows", cause="b")
        ledger.publish([good, held], night(number), "done", FeaturesSummary(snapshot=number), "shop")
    newest = ledger.settled_at(["a", "b", "c"], 2)
    assert {table: set(nights) for table, nights in newest.items()} == {
        "a": {night(2), night(4)}, "b": {night(2), night(4)},
    }, "held is settled, too"  # fmt: skip
    assert set(ledger.settled_at(["a"], 1, until=night(3))["a"]) == {night(2)}
    assert ledger.settled_at(["a"], 1, until=night(0)) == {}


def test_a_snapshot_at_which_a_table_stands_is_one_of_its_night_whatever_was_judged_since(ledger: Ledger) -> None:
    kept = TableState(night=FIRST, table="ftr_a__b", state="published", snapshot=5, good_night=FIRST)
    held = TableState(night=FIRST, table="ftr_a__c", state="held", snapshot=3, reason="it is wrong")
    ledger.publish([kept, held], FIRST, "done", FeaturesSummary(night=FIRST, snapshot=5), "shop")
    ledger.publish([], FIRST, "done", FeaturesSummary(night=FIRST, snapshot=9, kept=("ftr_a__b",)), "shop")
    assert ledger.publications() == {FIRST: {5, 9}}


def test_the_governors_word_on_a_model_is_of_its_own_newest_night(ledger: Ledger) -> None:
    """A night of a source whose data is newer says nothing of it."""
    word = GovernorAction(decision="steady", reasons=("no alarm",))
    for day, model in ((date(2016, 4, 1), "breach"), (date(2016, 4, 2), "breach"), (date(2025, 2, 3), "churn")):
        ledger.record_stage("", day, "done", GovernorSummary(night=day, actions={model: word}))
    newest = ledger.last_governed("breach", before=date(2026, 1, 1))
    assert newest is not None and newest.night == date(2016, 4, 2)
    assert ledger.last_governed("breach", before=date(2016, 4, 1)) is None
    assert ledger.last_governed("nobody", before=date(2026, 1, 1)) is None


def test_a_process_sees_to_the_tables_of_a_ledger_once(rails: Rails) -> None:
    """To see to them locks them: whoever looks at pages all day would hold up the night's writers."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", note)
    try:
        again = Ledger(rails.settings)
        assert again.models() == set()
        again.close()
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", note)
    assert sent and not [statement for statement in sent if "create" in statement.lower() or "lock" in statement]


def test_a_home_of_before_a_release_said_who_made_it_opens_and_says_it_from_then_on(rails: Rails) -> None:
    old = AcceptedRelease(digest="old", checkout="c", accepted_at=AT, files=1)
    with rails.ledger.engine.begin() as connection:
        connection.execute(sa.text("alter table release drop column released_by, drop column changed"))
        connection.execute(
            sa.text(
                "insert into release (digest, checkout, accepted_at, files, refused) values (:d, 'c', :at, 1, '[]')"
            ),
            {"d": old.digest, "at": AT},
        )
    ledger_module._made.discard(str(postgres.url(rails.settings, "ledger")))  # as another process opens it
    opened = Ledger(rails.settings)
    try:
        assert opened.release() == old
        new = replace(old, digest="new", released_by="ann", changed=("models/churn",))
        opened.accept(new)
        assert opened.releases() == [new, old]
    finally:
        opened.close()
