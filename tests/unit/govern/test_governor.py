"""The governor: incidents before retrains, at most the retrains that the portfolio affords, each for a reason."""

import dataclasses
import json
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tiltyard.govern.governor import Action, GovernorOutcome, cooling, govern
from tiltyard.govern.history import Grant, Mended, ModelHistory, NightHistory
from tiltyard.govern.lineage import Lineage
from tiltyard.govern.routine import upcoming
from tiltyard.portfolio_rules import Portfolio, Trainings
from tiltyard.records import Broken, Finding, Incident, Release, Signal, SinceTraining
from tiltyard.spec import DriftPolicy, RetrainPolicy

CASES = Path(__file__).resolve().parents[2] / "golden" / "governor"
START = date(2016, 4, 1)


# -- golden cases -----------------------------------------------------------------------------


def signal_of(values: dict[str, Any]) -> Signal:
    return Signal(**{"view": None, "statistic": "wasserstein", "threshold": 0.1, **values})


def finding_of(model: str, night: date, values: dict[str, Any]) -> Finding:
    defaults = {"tier": 2, "owner": "tests", "champion": 1, "challengers": (), "night": night}
    parts = {
        "signals": tuple(signal_of(one) for one in values.get("signals", ())),
        "broken": tuple(Broken(**one) for one in values.get("broken", ())),
        "since_training": SinceTraining(**values.get("since_training", {})),
    }
    return Finding(model=model, **{**defaults, **values, **parts})


def case_of(
    content: dict[str, Any],
) -> tuple[list[Finding], Lineage, NightHistory, dict[str, DriftPolicy], Portfolio, dict[str, RetrainPolicy]]:
    """A case's input.yaml. `copies: 80` of a model `m` are m_01 to m_80."""
    night = content["night"]
    findings, policies, pasts, reads, labels, retrain = [], {}, {}, {}, {}, {}
    for name, model in content["models"].items():
        for copy in copies(name, model.get("copies")):
            policies[copy] = DriftPolicy(**model.get("policy", {}))
            if "retrain" in model:
                retrain[copy] = RetrainPolicy(**model["retrain"])
            if "finding" in model:
                findings.append(finding_of(copy, night, model["finding"]))
            if "past" in model:
                grants = tuple(Grant(*grant) for grant in model["past"]["grants"])
                pasts[copy] = ModelHistory(grants, model["past"].get("best"))
            if "reads" in model:
                reads[copy] = frozenset(model["reads"])
            if "label" in model:
                labels[copy] = model["label"]
    parents = content.get("lineage", {}).get("parents", {})
    said = content.get("history", {})
    history = NightHistory(
        night=night,
        models=pasts,
        since={(model, kind, column): day for model, kind, column, day in said.get("since", ())},
        incidents=tuple(
            Incident(**{**one, "models": tuple(one["models"]), "columns": tuple(one["columns"])})
            for one in said.get("incidents", ())
        ),
        releases=tuple(Release(**one) for one in said.get("releases", ())),
        mended=tuple(Mended(**one) for one in said.get("mended", ())),
    )
    lineage = Lineage({table: frozenset(above) for table, above in parents.items()}, reads, labels)
    return findings, lineage, history, policies, Portfolio(**content.get("portfolio", {})), retrain


def copies(name: str, number: int | None) -> list[str]:
    if number is None:
        return [name]
    return [f"{name}_{place:0{len(str(number))}}" for place in range(1, number + 1)]


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_golden_case(case: str) -> None:
    content = yaml.safe_load((CASES / case / "input.yaml").read_text())
    expected = yaml.safe_load((CASES / case / "expect.yaml").read_text())
    outcome = govern(*case_of(content))
    actions = {action.model: action for action in outcome.actions}
    decisions = {
        copy: expected["decisions"][name]
        for name, model in content["models"].items()
        for copy in copies(name, model.get("copies"))
    }
    assert {model: action.decision for model, action in actions.items()} == decisions
    assert list(outcome.granted) == expected.get("granted", [])
    assert [
        {
            "node": one.node,
            "kind": one.kind,
            "models": len(one.models),
            "columns": list(one.columns),
            "since": one.since,
        }
        for one in outcome.incidents
    ] == expected.get("incidents", [])
    for model, reasons in expected.get("reasons", {}).items():
        assert list(actions[model].reasons) == reasons


# -- properties -------------------------------------------------------------------------------

VIEWS = ("ftr_a__x", "ftr_a__y", "ftr_b__z")
LINEAGE = {
    "raw.a": frozenset[str](),
    "raw.b": frozenset[str](),
    "stg_a": frozenset(("raw.a",)),
    "ftr_a__x": frozenset(("stg_a",)),
    "ftr_a__y": frozenset(("stg_a",)),
    "ftr_b__z": frozenset(("raw.b",)),
}
MODELS = tuple(f"m{number}" for number in range(6))
READS = {model: frozenset((VIEWS[place % 3], VIEWS[(place + 1) % 3])) for place, model in enumerate(MODELS)}
GRAPH = Lineage(LINEAGE, READS)


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    kind = draw(st.sampled_from(["feature", "feature", "prediction", "performance", "missing"]))
    tested = draw(st.integers(0, 4)) > 0
    view = draw(st.sampled_from(VIEWS)) if kind in ("feature", "missing") else None
    drifted = tested and draw(st.booleans())
    value = (0.3 if drifted else 0.05) if tested else None
    return Signal(kind, f"c{draw(st.integers(0, 2))}", view, "wasserstein", value, 0.1, drifted, note="why")


@st.composite
def findings(draw: st.DrawFn, model: str, night: date = START) -> Finding:
    nodes = st.sampled_from([*LINEAGE, "features", "shadow"])
    return Finding(
        model=model,
        night=night,
        tier=draw(st.integers(1, 3)),
        owner="tests",
        champion=draw(st.none() | st.integers(1, 5)),
        challengers=tuple(draw(st.lists(st.integers(1, 9), max_size=1))),
        alarm=draw(st.booleans()),
        evidence=draw(st.none() | st.floats(0, 1e6)),
        threshold=365.0,
        harm=draw(st.sampled_from(["felt", "felt", "not_felt", "unknown"])),
        signals=tuple(draw(st.lists(signals(), max_size=4))),
        broken=tuple(Broken(node, None, f"{node} is broken") for node in draw(st.lists(nodes, max_size=1)))
        if draw(st.integers(0, 3)) == 0
        else (),
        matured=draw(st.sampled_from([0, 400, 600])),
        min_matured=500,
    )


days = st.integers(-40, 3).map(lambda offset: START + timedelta(days=offset))
grants = st.builds(Grant, days, st.sampled_from(["running", "none", "pending", "rejected", "promoted"]))
pasts = st.builds(ModelHistory, st.lists(grants, max_size=4).map(tuple), st.none() | days)
policies = st.builds(
    DriftPolicy,
    on_drift=st.sampled_from(["retrain", "retrain", "retrain_always", "report"]),
    cooldown=st.integers(1, 10).map(lambda number: timedelta(days=number)),
)


@st.composite
def nights(draw: st.DrawFn) -> tuple[list[Finding], NightHistory, dict[str, DriftPolicy], Portfolio]:
    """Six models on one night, some of them silent, with pasts, an old incident, a release."""
    here = [draw(findings(model)) for model in MODELS if draw(st.integers(0, 5))]
    since = {
        (one.model, signal.kind, signal.column): draw(days)
        for one in here
        for signal in one.signals
        if signal.drifted and draw(st.booleans())
    }
    open_before = st.builds(
        Incident,
        st.sampled_from(list(LINEAGE)),
        st.just("shared_shift"),
        st.just(("m0",)),
        st.just(("c0",)),
        st.just("moved"),
        st.just(START - timedelta(days=2)),
    )
    history = NightHistory(
        night=START,
        models=draw(st.dictionaries(st.sampled_from(MODELS), pasts)),
        since=since,
        incidents=tuple(draw(st.lists(open_before, max_size=1))),
        releases=tuple(
            draw(
                st.lists(
                    st.builds(Release, st.sampled_from(list(LINEAGE)), days, st.just("a"), st.just("b")), max_size=1
                )
            )
        ),
        mended=tuple(
            draw(st.lists(st.builds(Mended, st.sampled_from(["raw.a", "raw.b"]), st.none(), days), max_size=1))
        ),
    )
    portfolio = Portfolio.model_validate({"trainings": {"per_night": draw(st.integers(1, 4))}})
    return here, history, {model: draw(policies) for model in MODELS}, portfolio


def decided(outcome: GovernorOutcome) -> dict[str, Action]:
    return {action.model: action for action in outcome.actions}


@given(nights(), st.randoms())
def test_the_order_of_what_comes_in_is_free(night: Any, random: Any) -> None:
    here, history, policy, portfolio = night
    first = govern(here, GRAPH, history, policy, portfolio)
    shuffled = [dataclasses.replace(one, signals=tuple(random.sample(one.signals, len(one.signals)))) for one in here]
    random.shuffle(shuffled)
    turned = dict(sorted(policy.items(), reverse=True))
    backwards = dataclasses.replace(
        history,
        models={
            model: dataclasses.replace(past, grants=past.grants[::-1])
            for model, past in reversed(list(history.models.items()))
        },
    )
    assert govern(shuffled, GRAPH, backwards, turned, portfolio) == first


@given(nights())
def test_every_model_has_one_action_with_a_reason(night: Any) -> None:
    here, history, policy, portfolio = night
    outcome = govern(here, GRAPH, history, policy, portfolio)
    assert [action.model for action in outcome.actions] == sorted(MODELS)
    assert all(action.reasons and all(action.reasons) for action in outcome.actions)
    assert set(outcome.granted) == {one.model for one in outcome.actions if one.decision == "retrain"}
    held = {model for incident in outcome.incidents for model in incident.models}
    assert held == {one.model for one in outcome.actions if one.decision == "incident"}
    for action in outcome.actions:
        assert (action.decision == "incident") == (action.incident is not None)


def test_a_retrain_that_came_to_nothing_answers_no_alarm() -> None:
    nights = [START + timedelta(days=day) for day in range(4)]
    became = ("promoted", "none", "running", "none")
    grants = tuple(Grant(night, what) for night, what in zip(nights, became, strict=True))
    assert [ModelHistory(grants[:count]).answered for count in range(5)] == [
        None,
        nights[0],
        nights[0],
        nights[2],
        nights[2],
    ]


@given(nights())
def test_a_retrain_has_a_cause_and_broken_data_is_none(night: Any) -> None:
    here, history, policy, portfolio = night
    seen = {one.model: one for one in here}
    for model in govern(here, GRAPH, history, policy, portfolio).granted:
        finding = seen[model]
        assert not any(GRAPH.reaches(one.node, one.column, model) for one in finding.broken)
        bootstrap = finding.champion is None and not finding.challengers and finding.matured >= finding.min_matured
        served = finding.champion is not None
        felt = finding.harm == "felt" or not served or policy[model].on_drift == "retrain_always"
        assert bootstrap or (finding.alarm and felt and policy[model].on_drift != "report")


@given(nights(), st.lists(st.integers(1, 60), min_size=6, max_size=6))
def test_what_is_due_without_an_alarm_takes_no_place_of_an_alarm(night: Any, ages: list[int]) -> None:
    here, history, policy, portfolio = night
    aged = dict(zip(MODELS, ages, strict=True))
    dated = [
        dataclasses.replace(one, since_training=SinceTraining(START - timedelta(days=aged[one.model]))) for one in here
    ]
    rule = dict.fromkeys(MODELS, RetrainPolicy(every=timedelta(days=28)))
    before = govern(dated, GRAPH, history, policy, portfolio)
    after = govern(dated, GRAPH, history, policy, portfolio, rule)
    assert govern(dated, GRAPH, history, policy, portfolio, {}) == before
    assert after.incidents == before.incidents
    was, now, seen = decided(before), decided(after), {one.model: one for one in dated}
    for model in MODELS:
        if was[model].decision != now[model].decision and was[model].decision in ("steady", "report"):
            assert aged[model] >= 28, "only the rule moves a model that asked for nothing"
        if was[model].decision in ("incident", "waiting", "cooldown"):
            assert now[model] == was[model]
        if was[model].decision == "retrain" and now[model].decision == "queued":
            assert any(seen[other].tier < seen[model].tier for other in after.granted)


def test_the_next_retrain_is_named_ahead() -> None:
    since = SinceTraining(date(2016, 4, 1), 3210)
    policy = RetrainPolicy(every=timedelta(days=28), after_matured=10_000)
    said = "due on 2016-04-29 by age or 3,210 of 10,000 labels have matured since the training of 2016-04-01"
    assert str(upcoming(policy, since)) == said
    assert str(upcoming(policy, since, date(2016, 5, 6), "; 1 retrain made nothing better")) == (
        f"{said}; not before 2016-05-06; 1 retrain made nothing better"
    )
    assert str(upcoming(RetrainPolicy(after_matured=3000), since)) == (
        "3,210 of 3,000 labels have matured, due since the training of 2016-04-01"
    )
    assert upcoming(policy, SinceTraining()) is None and upcoming(RetrainPolicy(), since) is None


@given(nights())
def test_it_fails_closed(night: Any) -> None:
    here, history, policy, portfolio = night
    for silent in MODELS:
        rest = [one for one in here if one.model != silent]
        outcome = govern(rest, GRAPH, history, policy, portfolio)
        assert decided(outcome)[silent].decision == "waiting"
    untested = [
        dataclasses.replace(
            one,
            alarm=False,
            champion=1,
            signals=tuple(dataclasses.replace(signal, value=None, drifted=False) for signal in one.signals),
        )
        for one in here
    ]
    assert govern(untested, GRAPH, history, policy, portfolio).granted == ()


@given(nights(), st.integers(0, 3))
def test_a_larger_budget_takes_nobody_back(night: Any, more: int) -> None:
    here, history, policy, portfolio = night
    before = govern(here, GRAPH, history, policy, portfolio)
    larger = Portfolio.model_validate({"trainings": {"per_night": portfolio.trainings.per_night + more}})
    after = govern(here, GRAPH, history, policy, larger)
    assert set(before.granted) <= set(after.granted)
    assert len(after.granted) <= max(larger.trainings.per_night, len(before.granted))
    assert after.incidents == before.incidents


@given(nights())
def test_the_budget_holds(night: Any) -> None:
    here, history, policy, portfolio = night
    gone = {model: sum(grant.night == START for grant in past.grants) for model, past in history.models.items()}
    running = sum(
        one.became == "running" and one.night < START for past in history.models.values() for one in past.grants
    )
    outcome = govern(here, GRAPH, history, policy, portfolio)
    new = [model for model in outcome.granted if not gone.get(model)]
    assert len(new) <= max(portfolio.trainings.per_night - running - sum(gone.values()), 0)
    queued = [one.model for one in outcome.actions if one.decision == "queued"]
    tiers = {one.model: one.tier for one in here}
    assert all(tiers[model] <= tiers[other] for model in new for other in queued)


@given(nights())
def test_a_night_done_again_grants_what_it_granted(night: Any) -> None:
    here, history, policy, portfolio = night
    first = govern(here, GRAPH, history, policy, portfolio)
    models = dict(history.models)
    for model in first.granted:
        past = models.get(model, ModelHistory())
        if not any(grant.night == START for grant in past.grants):
            models[model] = dataclasses.replace(past, grants=(*past.grants, Grant(START, "running")))
    again = govern(here, GRAPH, dataclasses.replace(history, models=models), policy, portfolio)
    assert again == first


@given(nights())
def test_what_later_nights_say_changes_nothing(night: Any) -> None:
    here, history, policy, portfolio = night
    known = {
        model: dataclasses.replace(past, grants=tuple(grant for grant in past.grants if grant.night <= START))
        for model, past in history.models.items()
    }
    earlier = dataclasses.replace(
        history,
        models=known,
        releases=tuple(one for one in history.releases if one.night <= START),
        mended=tuple(one for one in history.mended if one.last <= START),
        since={key: min(day, START) for key, day in history.since.items()},
    )
    late = [dataclasses.replace(one, night=START + timedelta(days=1)) for one in here[:1]]
    expected = govern(here, GRAPH, earlier, policy, portfolio)
    assert govern([*here, *late], GRAPH, history, policy, portfolio) == expected


@given(nights())
def test_a_release_only_ever_lets_go(night: Any) -> None:
    here, history, policy, portfolio = night
    before = govern(here, GRAPH, history, policy, portfolio)
    for incident in before.incidents:
        if incident.kind != "shared_shift":
            continue
        word = Release(incident.node, START, "alice", "the world")
        released = dataclasses.replace(history, releases=(*history.releases, word))
        after = govern(here, GRAPH, released, policy, portfolio)
        assert (incident.node, "shared_shift") not in {(one.node, one.kind) for one in after.incidents}


@hypothesis_settings(max_examples=60)
@given(st.lists(findings("m0"), min_size=1, max_size=60), policies, st.sampled_from(["rejected", "pending", "none"]))
def test_no_two_grants_are_closer_than_the_cooldown(nightly: list[Finding], policy: DriftPolicy, became: Any) -> None:
    granted: list[Grant] = []
    for offset, finding in enumerate(nightly):
        night = START + timedelta(days=offset)
        history = NightHistory(night, {"m0": ModelHistory(tuple(granted))})
        outcome = govern([dataclasses.replace(finding, night=night)], GRAPH, history, {"m0": policy}, Portfolio())
        if outcome.granted:
            granted.append(Grant(night, became))
    between = [later.night - earlier.night for earlier, later in pairwise(granted)]
    if became == "none":  # each of them gave no version: what kept it from one may be over soon
        least = [min(timedelta(days=2**number), policy.cooldown) for number in range(len(between))]
        assert all(wait >= pause for wait, pause in zip(between, least, strict=True))
    else:  # each of them made nothing better: the wait doubles
        assert all(wait >= policy.cooldown for wait in between)
        assert all(later >= earlier for earlier, later in pairwise(between)) or len(between) < 2


def test_a_training_that_gave_no_version_costs_no_cooldown() -> None:
    """One cohort was too few on Monday; on Tuesday there are two."""
    policy, night = DriftPolicy(cooldown=timedelta(days=14)), START
    waits = []
    for _ in range(6):
        past = ModelHistory(tuple(Grant(START + wait, "none") for wait in waits))
        while cooling(past, night, policy, Trainings()) is not None:
            night += timedelta(days=1)
        waits.append(night - START)
        night += timedelta(days=1)
    assert [wait.days for wait in waits] == [0, 1, 3, 7, 15, 29], "twice the pause each time, up to the cooldown"


@given(pasts, policies)
def test_one_more_retrain_in_vain_never_shortens_the_wait(past: ModelHistory, policy: DriftPolicy) -> None:
    trainings = Trainings()
    sane = dataclasses.replace(past, grants=tuple(one for one in past.grants if one.became != "running"))
    before = cooling(sane, START, policy, trainings)
    vain = dataclasses.replace(sane, grants=(*sane.grants, Grant(START - timedelta(days=1), "rejected")), best=None)
    after = cooling(vain, START, policy, trainings)
    known = cooling(dataclasses.replace(sane, best=None), START, policy, trainings)
    assert (after is not None or policy.cooldown <= timedelta(days=1)) and (before is None or known is not None)
    if known is not None and after is not None:
        assert after[0] >= known[0]


def test_a_night_has_one_finding_of_a_model() -> None:
    finding = finding_of("m", START, {})
    with pytest.raises(ValueError, match="two findings"):
        govern([finding, finding], Lineage(), NightHistory(START), {"m": DriftPolicy()}, Portfolio())


def test_drift_of_something_untested_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="cannot have drifted"):
        Signal("feature", "hour", "ftr_a__x", "wasserstein", None, None, True)


# -- what the ledger keeps --------------------------------------------------------------------


@given(findings("m0"))
def test_a_finding_comes_back_from_json_as_it_was(finding: Finding) -> None:
    assert Finding.from_json(json.loads(json.dumps(finding.to_json(), allow_nan=False))) == finding


def test_evidence_without_bounds_is_kept_as_a_number() -> None:
    finding = finding_of("m", START, {"evidence": float("inf"), "threshold": float("nan")})
    kept = Finding.from_json(json.loads(json.dumps(finding.to_json(), allow_nan=False)))
    assert kept.evidence is not None and kept.evidence > 1e300
    assert kept.threshold is None


def test_what_cannot_be_read_is_refused() -> None:
    written = finding_of("m", START, {}).to_json()
    for name, value in (("night", "yesterday"), ("harm", "a little"), ("challengers", "many")):
        with pytest.raises(ValueError, match=name):
            Finding.from_json(written | {name: value})
    with pytest.raises(ValueError, match="owner"):
        Finding.from_json({name: value for name, value in written.items() if name != "owner"})


def test_what_a_newer_version_adds_is_passed_over() -> None:
    finding = finding_of("m", START, {})
    assert Finding.from_json(finding.to_json() | {"mood": "good"}) == finding


def test_an_alarm_that_is_only_reported_gives_what_is_due_no_better_place() -> None:
    due, felt = MODELS[:2]
    old = {"night": START - timedelta(days=40)}
    shared: dict[str, Any] = {"tier": 2, "alarm": True, "champion": 1, "threshold": 10.0, "harm": "felt"}
    here = [
        finding_of(due, START, {**shared, "evidence": 900.0, "since_training": old}),
        finding_of(felt, START, {**shared, "evidence": 11.0, "since_training": old}),
    ]
    policy = {due: DriftPolicy(on_drift="report"), felt: DriftPolicy()}
    one = Portfolio(trainings=Trainings(per_night=1))
    rule = {due: RetrainPolicy(every=timedelta(days=28))}
    outcome = govern(here, GRAPH, NightHistory(START), policy, one, rule)
    assert outcome.granted == (felt,)
    assert decided(outcome)[due].decision == "queued"
