"""From rows to evidence: every number comes from the data, and what has not matured moves none that needs truth."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard.judge import gate, pairs
from tiltyard.spec import Label, Spec
from tiltyard.train import evaluation

FIRST = date(2016, 3, 2)
NIGHTS, PER_NIGHT = 12, 60
MATURED = 9
"""Nights whose cohorts have matured; the last three have not."""
TONIGHT = FIRST + timedelta(days=NIGHTS - 1)


def spec_of(**policy: object) -> Spec:
    """A model of tier 2 with one declared slice, unless `policy` says otherwise."""
    return Spec(
        name="m",
        entity="ticket",
        owner="desk",
        tier=2,
        source="incident",
        prediction={"spine": "spn_m", "features": ["ftr_ticket__m"]},
        label={"table": "lbl_m", "horizon": "2d"},
        estimator={"class": "xgboost.XGBClassifier"},
        light={"class": "sklearn.linear_model.LogisticRegression"},
        gate={"min_matured": 200, "min_shadow": "3d", "slices": ["priority"]} | policy,
        fallback={"safe_default": 0.4},
    )  # type: ignore[arg-type]


def drawn(seed: int = 1, **changes: object) -> pd.DataFrame:
    """Rows as truth.side_by_side gives them: version 1 is the champion, 2 the better challenger."""
    rng = np.random.default_rng(seed)
    count = NIGHTS * PER_NIGHT
    night = np.repeat(np.arange(FIRST.toordinal(), FIRST.toordinal() + NIGHTS), PER_NIGHT)
    chance = rng.random(count)
    is_matured = night < FIRST.toordinal() + MATURED
    at = [datetime(2016, 3, 1, tzinfo=UTC) + timedelta(days=int(n - night[0])) for n in night]
    rows = pd.DataFrame(
        {
            "prediction_time": pd.to_datetime(at, utc=True) + pd.to_timedelta(np.arange(count) % PER_NIGHT, unit="min"),
            "night": night,
            "scored_on": night,
            "is_matured": is_matured,
            "is_early": ~is_matured & (np.arange(count) % 4 == 0),
            "label": np.where(is_matured, (rng.random(count) < chance).astype(float), np.nan),
            "v1": np.clip(chance + rng.normal(0, 0.3, count), 0, 1),
            "v2": np.clip(chance + rng.normal(0, 0.05, count), 0, 1),
            "slice_priority": np.where(np.arange(count) % 3 == 0, "high", "low"),
        }
    )
    return rows.assign(**changes)


@pytest.fixture
def spec() -> Spec:
    return spec_of()


def gathered(spec: Spec, rows: pd.DataFrame, champion: int | None = 1, **known: object) -> gate.Evidence:
    return pairs.gather(spec, TONIGHT, rows, 2, champion, pairs.ChallengerFacts(**known))[0]  # type: ignore[arg-type]


def test_differences_are_of_matured_rows_in_the_order_of_time(spec: Spec) -> None:
    rows = drawn()
    found = gathered(spec, rows)
    matured = rows[rows["is_matured"]]
    expected = (matured["v1"] - matured["label"]) ** 2 - (matured["v2"] - matured["label"]) ** 2
    np.testing.assert_allclose(found.differences, expected)
    np.testing.assert_array_equal(found.nights, matured["night"])
    assert (found.expected, found.immature, found.early) == (MATURED * PER_NIGHT, 3 * PER_NIGHT, 3 * PER_NIGHT // 4)
    assert found.shadow == timedelta(days=NIGHTS)
    assert {part.name: len(part.differences) for part in found.slices} == {"priority=high": 180, "priority=low": 360}
    np.testing.assert_allclose(found.slices[0].differences, expected[matured["slice_priority"] == "high"])


def test_the_metric_is_the_specs() -> None:
    rows = drawn()
    scored = rows[rows["is_matured"]]
    cost = {"false_positive": 1.0, "false_negative": 4.0}
    for metric in ("brier", "log_loss", "cost"):
        spec = spec_of(metric=metric, cost=cost)
        label = scored["label"].to_numpy()
        losses = [spec.target.losses(metric, scored[name].to_numpy(), label, spec.gate.cost) for name in ("v1", "v2")]
        np.testing.assert_allclose(gathered(spec, rows).differences, losses[0] - losses[1])


def test_early_labels_change_nothing(spec: Spec) -> None:
    """Neither that they are known nor what they say: whoever put one into `label` would not get it counted."""
    rows = drawn()
    leaked = rows.assign(label=np.where(rows["is_early"], 1.0, rows["label"]))
    (before, record), (after, leaked_record) = (pairs.gather(spec, TONIGHT, frame, 2, 1) for frame in (rows, leaked))
    np.testing.assert_array_equal(before.differences, after.differences)
    assert record == leaked_record
    assert pairs.picture(spec, before, rows, 2, 1) == pairs.picture(spec, after, leaked, 2, 1)


def test_a_row_that_one_of_them_did_not_score_is_no_pair_but_expected(spec: Spec) -> None:
    rows = drawn()
    gap = rows["night"] == FIRST.toordinal() + 3
    found = gathered(spec, rows.assign(v1=rows["v1"].mask(gap)))
    assert (len(found.differences), found.expected) == ((MATURED - 1) * PER_NIGHT, MATURED * PER_NIGHT)
    unlabelled = gathered(spec, rows.assign(label=rows["label"].mask(gap)))
    assert (len(unlabelled.differences), unlabelled.expected) == ((MATURED - 1) * PER_NIGHT, MATURED * PER_NIGHT)


def test_a_slice_that_the_challenger_does_not_score_is_told_by_name_and_holds(spec: Spec) -> None:
    rows = drawn()
    vip = np.arange(len(rows)) % 25 == 0
    rows = rows.assign(slice_priority=rows["slice_priority"].mask(vip, "vip"), v2=rows["v2"].mask(vip))
    found = gathered(spec, rows)
    told = {part.name: (part.rows, part.expected) for part in found.slices}
    many = int((vip & rows["is_matured"]).sum())
    assert told["priority=vip"] == (0, many)
    assert all(rows == expected for name, (rows, expected) in told.items() if name != "priority=vip")
    few = int((~vip & rows["is_matured"]).sum())
    assert sum(part.rows for part in found.slices) == len(found.differences) == few
    more = replace(found, slices=tuple(replace(part, expected=part.expected * 3) for part in found.slices))
    for evidence, status in ((found, "pass"), (more, "not_yet")):  # 22 rows are too few to ask for, 66 are not
        criteria = {one.name: one.status for one in gate.decide(evidence, spec.gate, 20).criteria}
        assert criteria["slice priority=vip"] == status


def test_a_promoted_version_that_stops_scoring_does_not_escape_the_watch(spec: Spec) -> None:
    """Previous is 2, the promoted one is 1: what it does not score is the safe default's, and that is worse."""
    rows = drawn().assign(v1=np.nan)
    found, _ = pairs.gather(spec, TONIGHT, rows, 2, 1, fills=True)
    assert (len(found.differences), found.expected) == (MATURED * PER_NIGHT, MATURED * PER_NIGHT)
    assert gate.watch(found, spec.gate).verdict == "rollback"
    without, _ = pairs.gather(spec, TONIGHT, rows, 2, 1)
    assert gate.watch(without, spec.gate).verdict == "keep"
    gaps = drawn().assign(v1=drawn()["v2"].mask(np.arange(len(rows)) % 10 == 0))
    found, _ = pairs.gather(spec, TONIGHT, gaps, 2, 1, fills=True)
    assert len(found.differences) == found.expected
    assert found.differences[found.differences != 0].size == found.expected // 10


def test_nothing_before_the_challenger_entered_shadow_counts(spec: Spec) -> None:
    rows = drawn()
    late = gathered(spec, rows.assign(v2=rows["v2"].mask(rows["night"] < FIRST.toordinal() + 4)))
    assert late.shadow == timedelta(days=NIGHTS - 4)
    assert (late.expected, len(late.differences)) == ((MATURED - 4) * PER_NIGHT,) * 2


def test_without_a_champion_the_safe_default_scores_every_row(spec: Spec) -> None:
    rows = drawn()
    found = gathered(spec, rows, champion=None)
    matured = rows[rows["is_matured"]]
    expected = (spec.fallback.safe_default - matured["label"]) ** 2 - (matured["v2"] - matured["label"]) ** 2
    np.testing.assert_allclose(found.differences, expected)
    assert found.safe_default == spec.fallback.safe_default
    assert found.calibration is not None
    constant = np.full(len(matured), spec.fallback.safe_default)
    assert found.calibration.champion == evaluation.calibration_error(constant, matured["label"].to_numpy(dtype=float))


def test_roles_reversed_is_the_other_sign(spec: Spec) -> None:
    rows = drawn()
    there, _ = pairs.gather(spec, TONIGHT, rows, 2, 1)
    back, _ = pairs.gather(spec, TONIGHT, rows, 1, 2)
    np.testing.assert_allclose(there.differences, -back.differences)
    default, _ = pairs.gather(spec, TONIGHT, rows, None, 1)
    assert default.challenger == pairs.SAFE_DEFAULT
    alone, _ = pairs.gather(spec, TONIGHT, rows, 1, None)
    np.testing.assert_allclose(default.differences, -alone.differences)


def test_calibration_is_measured_on_the_same_matured_rows(spec: Spec) -> None:
    rows = drawn()
    matured = rows[rows["is_matured"]]
    label = matured["label"].to_numpy()
    found = gathered(spec, rows).calibration
    assert found == gate.Compared(
        evaluation.calibration_error(matured["v2"].to_numpy(), label),
        evaluation.calibration_error(matured["v1"].to_numpy(), label),
    )
    skewed = gathered(spec, rows.assign(v2=rows["v2"] ** 3)).calibration
    assert skewed is not None
    assert skewed.challenger > found.challenger + 0.05
    assert skewed.champion == found.champion


def test_scores_that_moved_show_without_any_truth(spec: Spec) -> None:
    rows = drawn()
    calm = gathered(spec, rows).score_shift
    assert calm is not None
    moved_rows = rows.assign(v2=np.where(rows["night"] >= FIRST.toordinal() + MATURED, rows["v2"] / 3, rows["v2"]))
    moved = gathered(spec, moved_rows).score_shift
    assert moved is not None
    assert moved.challenger > calm.challenger + 0.1
    assert moved.champion == calm.champion
    one_night = gathered(spec, rows[rows["night"] == FIRST.toordinal()])
    assert one_night.score_shift is None, "one night has no halves"


def test_what_is_known_besides_goes_through(spec: Spec) -> None:
    known = {
        "challengers": 4,
        "missing": gate.Missing("size", 0.1, 0.4),
        "latency_ms": 3.0,
        "size_mb": 1.5,
        "replay": gate.Replayed("pass", ""),
        "labels": gate.Labelled("sound", ""),
    }
    found, record = pairs.gather(spec, TONIGHT, drawn(), 2, 1, pairs.ChallengerFacts(**known))  # type: ignore[arg-type]
    for name, value in known.items():
        assert getattr(found, name) == value
    assert (record.missing.feature, record.replay.verdict, record.latency_ms) == ("size", "pass", 3.0)


def test_trusted_labels_are_a_slice_on_which_a_challenger_must_hold() -> None:
    asked = spec_of()
    label = Label(table="lbl_m", horizon="2d", trusted={"column": "checked_by", "values": ["audit"]})  # type: ignore[arg-type]
    asked = asked.model_copy(update={"label": label})
    rows = drawn()
    trusted = np.arange(len(rows)) % 4 == 0
    worse = rows.assign(is_trusted=trusted, v2=np.where(trusted, 1 - rows["v2"], rows["v2"]))
    for frame, status in (
        (rows.assign(is_trusted=trusted), "pass"),
        (worse, "fail"),
        (rows.assign(is_trusted=False), "not_yet"),
    ):
        found = pairs.gather(asked, TONIGHT, frame, 2, 1)[0]
        told = [one for one in gate.decide(found, asked.gate, 20).criteria if one.name.startswith("slice trusted")]
        assert told[0].status == status
    assert not [part for part in pairs.gather(spec_of(), TONIGHT, worse, 2, 1)[0].slices if "trusted" in part.name]


def test_nobody_scored_is_no_evidence_and_no_error(spec: Spec) -> None:
    rows = drawn().assign(v2=np.nan)
    for frame in (rows, rows[:0]):
        found, record = pairs.gather(spec, TONIGHT, frame, 2, 1)
        assert (len(found.differences), found.expected, found.shadow) == (0, 0, timedelta())
        assert (found.calibration, found.score_shift, record.loss_challenger) == (None, None, None)
        assert gate.decide(found, spec.gate, 20).verdict == "hold"


def test_the_record_changes_with_any_row(spec: Spec) -> None:
    rows = drawn()
    _, record = pairs.gather(spec, TONIGHT, rows, 2, 1)
    touched = rows.copy()
    touched.loc[5, "v2"] = 1 - touched.loc[5, "v2"]
    assert pairs.gather(spec, TONIGHT, touched, 2, 1)[1].rows != record.rows
    assert pairs.gather(spec, TONIGHT, rows.copy(), 2, 1)[1] == record


@pytest.mark.parametrize(
    ("shares", "trained", "worst"),
    [
        ({"a": 0.1, "b": 0.5}, {"a": 0.1, "b": 0.4}, gate.Missing("b", 0.4, 0.5)),
        ({"a": 0.0, "b": 0.0}, {"a": 0.1, "b": 0.4}, gate.Missing("a", 0.1, 0.0)),
        ({"a": 0.1}, {"a": 0.1, "b": 0.4}, gate.Missing("b", 0.4, 1.0)),
        ({"a": 0.1, "new": 1.0}, {"a": 0.1}, gate.Missing("a", 0.1, 0.1)),
        ({}, {"a": 0.1}, None),
        ({"a": 0.1}, {}, None),
    ],
)
def test_the_feature_that_went_missing_most(
    shares: dict[str, float], trained: dict[str, float], worst: gate.Missing | None
) -> None:
    assert pairs.missing(shares, trained) == worst


def test_the_picture_adds_up(spec: Spec) -> None:
    rows = drawn()
    evidence, _ = pairs.gather(spec, TONIGHT, rows, 2, 1)
    found = pairs.picture(spec, evidence, rows, 2, 1)
    last = found.running[-1]
    verdict = gate.decide(evidence, spec.gate, 20)
    assert (last.rows, last.mean) == (len(evidence.differences), pytest.approx(verdict.mean))
    assert (last.low, last.high) == (pytest.approx(verdict.low), pytest.approx(verdict.high))
    assert len(found.running) == MATURED
    assert sum(found.scores["challenger"]) == NIGHTS * PER_NIGHT
    assert sum(part.rows for part in found.calibration["champion"]) == MATURED * PER_NIGHT
    parts = ("labelled", "missing", "early", "waiting")
    assert [sum(getattr(row, name) for row in found.arrival) for name in parts] == [540, 0, 45, 135]
    assert [(row.name, row.rows) for row in found.slices] == [
        ("all", 540), ("priority=high", 180), ("priority=low", 360)
    ]  # fmt: skip
    assert all(row.low < row.mean < row.high for row in found.slices)


# -- classes ----------------------------------------------------------------------------------

CLASSES = ("early", "on_time", "late")


def of_classes(**policy: object) -> Spec:
    plain = spec_of(slices=[], **policy).model_dump(mode="python", by_alias=True)
    label = {"table": "lbl_m", "horizon": "2d", "classes": CLASSES}
    return Spec(**plain | {"label": label, "fallback": {"safe_default": {"early": 0.2, "on_time": 0.5, "late": 0.3}}})


def drawn_classes() -> tuple[pd.DataFrame, np.ndarray]:
    """The same rows with distributions: the challenger knows more, and has forgotten that anybody may be late."""
    rng = np.random.default_rng(4)
    rows = drawn()
    chance = rng.dirichlet((1, 2, 0.5), len(rows))
    came = np.array([rng.choice(3, p=row) for row in chance])
    kind = of_classes().target
    knows = 0.5 * chance + 0.5 * np.array([0.3, 0.5, 0.2])
    forgets = chance * np.array([1, 1, 0.2])
    told = {"v1": kind.told(knows), "v2": kind.told(forgets / forgets.sum(axis=1, keepdims=True))}
    return rows.assign(label=np.where(rows["is_matured"], came, np.nan), **told), came


def test_no_class_may_be_worse_against_a_champion_and_none_is_asked_about_against_a_constant() -> None:
    spec = of_classes()
    rows, came = drawn_classes()
    found = gathered(spec, rows)
    matured = rows["is_matured"].to_numpy()
    scores = {name: spec.target.scores(rows[name])[matured] for name in ("v1", "v2")}
    loss = {name: ((values - np.eye(3)[came[matured]]) ** 2).sum(axis=1) / 2 for name, values in scores.items()}
    np.testing.assert_allclose(found.differences, loss["v1"] - loss["v2"])
    assert [part.name for part in found.slices] == [f"label={name}" for name in CLASSES]
    for place, part in enumerate(found.slices):
        inside = came[matured] == place
        assert part.rows == part.expected == inside.sum()
        np.testing.assert_allclose(part.differences, (loss["v1"] - loss["v2"])[inside])
    verdict = gate.decide(found, spec.gate, 20)
    slices = {row.name: row.status for row in verdict.criteria if row.name.startswith("slice")}
    assert slices["slice label=late"] in ("fail", "not_yet") and slices["slice label=on_time"] == "pass"
    assert verdict.verdict != "promote"
    assert gathered(spec, rows, champion=None).slices == ()
    drawing = pairs.picture(spec, found, rows, 2, 1)
    assert drawing.kind == "classes" and sum(drawing.scores["challenger"]) == len(rows)
    assert [part.name for part in drawing.slices] == ["all", *(f"label={name}" for name in CLASSES)]


def test_a_shift_among_classes_is_seen_where_the_likeliest_ones_probability_stays() -> None:
    spec = of_classes()
    rows, _ = drawn_classes()
    late = (rows["night"] >= FIRST.toordinal() + NIGHTS // 2).to_numpy()
    rng = np.random.default_rng(5)
    sure = rng.uniform(0.6, 0.9, len(rows))
    rest = (1 - sure) / 2
    turned = np.where(late[:, None], np.column_stack([rest, rest, sure]), np.column_stack([sure, rest, rest]))
    found = gathered(spec, rows.assign(v2=spec.target.told(turned)))
    assert found.score_shift is not None and found.score_shift.challenger is not None
    assert found.score_shift.challenger > 1
    halves = (spec.target.single(turned)[~late], spec.target.single(turned)[late])
    alone = evaluation.population_stability(*halves)
    assert alone is not None and alone < 0.1


def test_what_a_promoted_version_of_classes_did_not_score_counts_as_the_safe_defaults() -> None:
    spec = of_classes()
    rows, _ = drawn_classes()
    rows.loc[rows.index[::2], "v1"] = None
    filled, _ = pairs.gather(spec, TONIGHT, rows, 2, 1, fills=True)
    halved, _ = pairs.gather(spec, TONIGHT, rows, 2, 1)
    assert len(filled.differences) == 2 * len(halved.differences) == MATURED * PER_NIGHT
