"""The gate: what each criterion says, what holds, and the golden cases."""

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltyard.clock import parse_duration
from tiltyard.judge.gate import Compared, Evidence, Labelled, Missing, Replayed, SliceEvidence, decide, watch
from tiltyard.spec import GatePolicy
from tiltyard.target import YES_OR_NO

GOLDEN = Path(__file__).parents[2] / "golden" / "gate"
POLICY = GatePolicy(min_matured=500, min_shadow="7d", slices=("priority",))
DEADLINE_MS = 20
CRITERIA = [
    "evidence", "shadow", "matured", "coverage", "better", "nights",
    "calibration", "stability", "availability", "latency", "size", "replay", "labels",
]  # fmt: skip
RANK = {"reject": 0, "hold": 1, "promote": 2}
FIGURES = {
    "calibration": Compared(0.03, 0.04),
    "score_shift": Compared(0.02, 0.02),
    "missing": Missing("tickets_open", 0.02, 0.03),
    "latency_ms": 0.4,
    "size_mb": 0.5,
    "replay": Replayed("pass", ""),
    "labels": Labelled("sound", "They are no others than was to be expected."),
}
"""What everybody would like to see."""


def differences(rows=2000, mean=0.03, sd=0.1, seed=1, per_night=100, night_sd=0.0):
    """Exactly this mean and spread, in a seeded order, and one shock of spread `night_sd` for every night."""
    rng = np.random.default_rng(seed)
    draw = rng.normal(size=rows)
    draw = (draw - draw.mean()) / (draw.std() or 1.0) if rows > 1 else draw * 0
    if night_sd:
        shocks = rng.normal(size=rows // per_night)
        draw = draw + night_sd / sd * ((shocks - shocks.mean()) / shocks.std()).repeat(per_night)
    return np.clip(draw * sd + mean, -1, 1)


def nights(rows, per_night=100):
    return 736_000 + np.arange(rows) // per_night


def evidence(**changes):
    drawn = differences()
    base = Evidence(
        challenger=2,
        champion=1,
        safe_default=None,
        shadow=timedelta(days=30),
        differences=drawn,
        nights=nights(2000),
        expected=2000,
        slices=(part("priority=high", drawn[:400]), part("priority=low", drawn[400:])),
        immature=100,
        early=40,
        **FIGURES,
    )
    return replace(base, **changes)


def part(name, values, expected=None):
    """A slice whose rows all carry both scores and a label, unless it says otherwise."""
    return SliceEvidence(name, values, len(values) if expected is None else expected)


def from_slice(content):
    name, expected = content.pop("name"), content.pop("expected", None)
    return part(name, differences(**content, seed=3), expected)


def from_yaml(case):
    """Evidence whose figures are fine unless the case says otherwise, its policy, and which function to ask."""
    content = yaml.safe_load(case.read_text())
    ask, policy = content.pop("ask", "decide"), GatePolicy(**content.pop("policy"))
    per_night = 100
    if "scores" in content:
        shape = content.pop("scores")
        label, champion, challenger = (
            np.tile(np.array(content.pop(name), dtype=float), shape["repeat"])
            for name in ("label", "champion_scores", "challenger_scores")
        )
        values = YES_OR_NO.losses(policy.metric, champion, label, policy.cost)
        values = values - YES_OR_NO.losses(policy.metric, challenger, label, policy.cost)
        per_night = shape["per_night"]
    else:
        drawn = content.pop("differences")
        values = differences(**drawn) if isinstance(drawn, dict) else np.array(drawn, dtype=float)
        per_night = drawn["per_night"] if isinstance(drawn, dict) else per_night
    slices = tuple(from_slice(part) for part in content.pop("slices", ()))
    kinds = {"calibration": Compared, "score_shift": Compared, "missing": Missing, "replay": Replayed}
    for name, kind in kinds.items():
        if content.get(name):
            content[name] = kind(**content[name])
    content["shadow"] = parse_duration(content["shadow"])
    defaults = {"expected": len(values), "safe_default": None} | FIGURES
    found = Evidence(differences=values, nights=nights(len(values), per_night), slices=slices, **defaults | content)
    return watch(found, policy) if ask == "watch" else decide(found, policy, DEADLINE_MS)


@pytest.mark.parametrize("case", sorted(GOLDEN.iterdir()), ids=lambda case: case.name)
def test_golden(case):
    expected = yaml.safe_load((case / "expect.yaml").read_text())
    verdict = from_yaml(case / "evidence.yaml")
    assert verdict.verdict == expected["verdict"], verdict.lines
    assert {c.name: c.status for c in verdict.criteria if c.status != "pass"} == expected["open"]
    assert any(expected["says"] in criterion.reason for criterion in verdict.criteria), verdict.reasons


def test_every_criterion_is_listed_whatever_the_evidence():
    nothing = {"differences": np.array([]), "nights": np.array([], dtype=np.int64), "expected": 0, "slices": ()}
    for changed in ({}, nothing, {"expected": 0}, dict.fromkeys(FIGURES)):
        names = [criterion.name for criterion in decide(evidence(**changed), POLICY, DEADLINE_MS).criteria]
        assert names[: len(CRITERIA)] == CRITERIA
        assert names[len(CRITERIA)].startswith("slice priority")


def test_a_line_says_number_limit_and_status():
    lines = decide(evidence(latency_ms=None), POLICY, DEADLINE_MS).lines
    assert "calibration 0.03, limit 0.1: pass" in lines
    assert "latency –, limit 20: not yet" in lines
    assert "shadow 30d, limit 7d: pass" in lines


NAN = float("nan")
HALF = differences(1000)


@pytest.mark.parametrize(
    "broken",
    [
        {"differences": np.append(differences(1999), NAN)},
        {"differences": np.append(differences(1999), np.inf)},
        {"differences": np.append(differences(1999), 1.5)},
        {"differences": differences().reshape(2, -1)},
        {"nights": nights(1999)},
        {"nights": nights(2000)[::-1]},
        {"nights": nights(2000) / 2},
        {"champion": None},
        {"champion": None, "safe_default": NAN},
        {"champion": 2},
        {"challengers": 0},
        {"expected": 1999},
        {"shadow": timedelta(days=-1)},
        {"early": 101},
        {"early": -1},
        {"slices": (part("priority=high", np.append(HALF, NAN)),)},
        {"slices": (part("priority=high", np.append(HALF, 1.5)),)},
        {"slices": (part("priority=high", differences(4000)),)},
        {"slices": (part("priority=high", HALF), part("priority=high", HALF))},
        {"calibration": Compared(NAN, 0.1)},
        {"score_shift": Compared(0.1, -1.0)},
        {"missing": Missing("tickets_open", 0.1, 1.2)},
        {"latency_ms": NAN},
        {"size_mb": -1.0},
    ],
)
def test_unsound_evidence_holds_and_keeps(broken):
    assert decide(evidence(), POLICY, DEADLINE_MS).verdict == "promote"
    assert watch(evidence(), POLICY).verdict == "rollback"
    worse = evidence(**broken)
    for found in (worse, replace(worse, differences=-worse.differences)):
        verdict = decide(found, POLICY, DEADLINE_MS)
        assert verdict.verdict == "hold"
        assert verdict.criteria[0].status == "fail"
        assert verdict.low is None
        assert watch(found, POLICY).verdict == "keep"


@pytest.mark.parametrize("name", [*FIGURES, "slices"])
def test_without_any_one_piece_of_evidence_nothing_is_promoted(name):
    removed = evidence(**{name: () if name == "slices" else None})
    assert decide(removed, POLICY, DEADLINE_MS).verdict == "hold"


def test_every_optional_piece_of_evidence_is_asked_for():
    optional = {field.name for field in fields(Evidence) if field.default is None}
    assert optional == set(FIGURES)


@pytest.mark.parametrize(
    ("name", "changed", "status"),
    [
        ("shadow", {"shadow": timedelta(days=6)}, "not_yet"),
        ("coverage", {"expected": 2200}, "fail"),
        ("nights", {"nights": nights(2000, 1000)}, "not_yet"),
        ("calibration", {"calibration": Compared(0.11, 0.1)}, "fail"),
        ("calibration", {"calibration": Compared(0.11, None)}, "fail"),
        ("calibration", {"calibration": Compared(None, 0.1)}, "not_yet"),
        ("stability", {"score_shift": Compared(0.3, 0.1)}, "fail"),
        ("availability", {"missing": Missing("tickets_open", 0.0, 0.21)}, "fail"),
        ("latency", {"latency_ms": 20.1}, "fail"),
        ("size", {"size_mb": 50.1}, "fail"),
        ("replay", {"replay": Replayed("fail", "")}, "fail"),
        ("replay", {"replay": Replayed("untestable", "")}, "not_yet"),
        ("labels", {"labels": None}, "not_yet"),
        ("labels", {"labels": Labelled("suspect", "57 of 1250 rows too many.")}, "fail"),
        ("slice priority=high", {"slices": (part("priority=high", -differences(400)),)}, "not_yet"),
    ],
)
def test_every_criterion_alone_can_hold(name, changed, status):
    verdict = decide(evidence(**changed), POLICY, DEADLINE_MS)
    assert {c.name: c.status for c in verdict.criteria if c.status != "pass"} == {name: status}
    assert verdict.verdict == "hold"


def test_where_some_rows_never_get_an_outcome_the_policy_says_how_many_need_one():
    """Of 2,200 rows 2,000 have both; a slice needs the same share, and a twentieth less."""
    slices = (part("priority=high", differences(400), expected=480),)
    text = "; where it is usual that a row has no outcome, gate.min_coverage says so."
    held = decide(evidence(expected=2200, slices=slices), POLICY, DEADLINE_MS)
    status = {criterion.name: criterion for criterion in held.criteria}
    assert status["coverage"].reason.endswith(text) and status["slice priority=high"].status == "not_yet"
    policy = POLICY.model_copy(update={"min_coverage": 0.9})
    passed = {criterion.name: criterion.status for criterion in
              decide(evidence(expected=2200, slices=slices), policy, DEADLINE_MS).criteria}  # fmt: skip
    assert passed["coverage"] == "pass" and passed["slice priority=high"] == "not_yet"
    policy = POLICY.model_copy(update={"min_coverage": 0.85})
    assert decide(evidence(expected=2200, slices=slices), policy, DEADLINE_MS).verdict == "promote"
    less = POLICY.model_copy(update={"min_coverage": 0.92})
    assert decide(evidence(expected=2200), less, DEADLINE_MS).verdict == "hold"


@pytest.mark.parametrize(
    "at_the_limit",
    [
        {"shadow": timedelta(days=7)},
        {"expected": 2105},
        {"calibration": Compared(0.1, 0.05)},
        {"calibration": Compared(0.3, 0.3)},
        {"score_shift": Compared(0.25, 0.1)},
        {"missing": Missing("tickets_open", 0.5, 0.7)},
        {"missing": Missing("tickets_open", 0.9, 0.1)},
        {"latency_ms": 20.0},
        {"size_mb": 50.0},
        {"replay": Replayed("warn", "")},
        {"labels": Labelled("untested", "No version had spoken before them.")},
    ],
)
def test_what_just_meets_its_limit_is_promoted(at_the_limit):
    assert decide(evidence(**at_the_limit), POLICY, DEADLINE_MS).verdict == "promote"


def test_among_many_a_slice_has_to_be_worse_beyond_more_doubt():
    worse = (part("priority=high", differences(200, mean=-0.05, sd=0.1)),)
    status = [
        decide(evidence(slices=worse, challengers=challengers), POLICY, DEADLINE_MS).criteria[-1].status
        for challengers in (1, 10)
    ]
    assert status == ["fail", "not_yet"]


def test_rows_alone_can_hold():
    # the same nights; rows that scatter so much that their mean is not told apart
    drawn = np.tile([0.9, -0.8], 300)
    found = evidence(differences=drawn, nights=nights(600, 20), expected=600, slices=())
    verdict = decide(found, GatePolicy(), DEADLINE_MS)
    assert {c.name: c.status for c in verdict.criteria if c.status != "pass"} == {"better": "not_yet"}
    few = evidence(differences=differences(499), nights=nights(499, 50), expected=499, slices=())
    verdict = decide(few, GatePolicy(), DEADLINE_MS)
    assert {c.name: c.status for c in verdict.criteria if c.status != "pass"} == {"matured": "not_yet"}


def test_challengers_that_lose_rows_are_not_judged():
    assert decide(evidence(expected=2106), POLICY, DEADLINE_MS).verdict == "hold"
    assert decide(evidence(expected=2106, differences=-differences()), POLICY, DEADLINE_MS).verdict == "hold"


def test_the_watch_asks_for_a_promoted_version():
    assert watch(evidence(champion=None, safe_default=0.3), POLICY).verdict == "keep"


@st.composite
def judged(draw):
    per_night, count = draw(st.integers(5, 30)), draw(st.integers(1, 15))
    rows = per_night * count
    drawn = differences(rows, draw(st.floats(-0.3, 0.3)), draw(st.floats(0.0, 0.3)), draw(st.integers(0, 9)))
    inside = draw(st.integers(0, rows))
    shift = draw(st.floats(-0.2, 0.2))
    return evidence(
        differences=drawn,
        nights=nights(rows, per_night),
        expected=rows + draw(st.integers(0, rows // 10)),
        shadow=timedelta(days=draw(st.integers(0, 14))),
        challengers=draw(st.integers(1, 5)),
        slices=(part("priority=high", np.clip(drawn[:inside] + shift, -1, 1)),),
        calibration=Compared(draw(st.floats(0, 0.15)), draw(st.one_of(st.none(), st.floats(0, 0.15)))),
        latency_ms=draw(st.floats(15, 21)),
    )


LENIENT = GatePolicy(min_matured=50, min_shadow="7d", slices=("priority",))


def mirrored(found):
    parts = tuple(replace(one, differences=-one.differences) for one in found.slices)
    return replace(found, differences=-found.differences, slices=parts)


@given(judged())
def test_swapping_champion_and_challenger_mirrors_what_is_found(found):
    one, other = decide(found, LENIENT, DEADLINE_MS), decide(mirrored(found), LENIENT, DEADLINE_MS)
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert one.high == pytest.approx(-other.low, abs=1e-12)
    assert not (one.verdict == other.verdict == "promote")
    assert one.verdict != "promote" or other.verdict == "reject"
    swap = {"pass": "fail", "fail": "pass", "not_yet": "not_yet"}
    for mine, theirs in zip(one.criteria[4:6], other.criteria[4:6], strict=True):
        assert mine.status == swap[theirs.status]
    assert (watch(found, LENIENT).verdict == "rollback") <= (watch(mirrored(found), LENIENT).verdict == "keep")


@given(judged(), st.randoms(use_true_random=False))
def test_the_order_of_rows_within_a_night_says_nothing(found, random):
    order = sorted(range(len(found.nights)), key=lambda place: (found.nights[place], random.random()))
    one = decide(found, LENIENT, DEADLINE_MS)
    other = decide(replace(found, differences=found.differences[order]), LENIENT, DEADLINE_MS)
    assert (one.verdict, one.low, one.high) == pytest.approx((other.verdict, other.low, other.high), abs=1e-9)


BETTER = [
    "mean", "shadow", "slice", "challengers", "coverage", "calibration", "latency", "size", "missing", "replay",
    "margin",
]  # fmt: skip


@given(judged(), st.floats(0.0, 0.2), st.sampled_from(BETTER))
@settings(max_examples=300)
def test_better_evidence_never_makes_the_verdict_worse(found, by, what):
    policy = LENIENT
    before = decide(found, policy, DEADLINE_MS).verdict
    if what == "mean":  # every row and so, of nights of equal size, every night
        room = by * (1 - found.differences.max())
        better = replace(found, differences=found.differences + room)
    elif what == "shadow":
        better = replace(found, shadow=found.shadow + timedelta(days=3))
    elif what == "slice":
        parts = tuple(replace(part, differences=np.minimum(part.differences + by, 1)) for part in found.slices)
        better = replace(found, slices=parts)
    elif what == "challengers":
        better = replace(found, challengers=1)
        if before == "reject":  # alone it may be told apart as worse all the sooner
            return
    elif what == "coverage":
        better = replace(found, expected=len(found.differences))
    elif what == "margin":
        better, policy = found, policy.model_copy(update={"max_slice_loss": policy.max_slice_loss + by})
    else:
        better = replace(
            found,
            **{
                "calibration": {"calibration": replace(found.calibration, challenger=0.0)},
                "latency": {"latency_ms": found.latency_ms - 10 * by},
                "size": {"size_mb": 0.1},
                "missing": {"missing": Missing("tickets_open", 0.02, 0.0)},
                "replay": {"replay": Replayed("pass", "")},
            }[what],
        )
    after = decide(better, policy, DEADLINE_MS).verdict
    if what not in ("coverage", "challengers") or before == "promote":
        assert RANK[after] >= RANK[before]


@given(judged())
def test_promotion_needs_every_criterion_and_rejection_needs_both_statistics(found):
    verdict = decide(found, LENIENT, DEADLINE_MS)
    status = {criterion.name: criterion.status for criterion in verdict.criteria}
    assert (verdict.verdict == "promote") == all(value == "pass" for value in status.values())
    if verdict.verdict == "reject":
        assert status["matured"] == status["coverage"] == "pass"
        assert status["nights"] == "fail"
        assert verdict.high < 0
