"""A night is scored by every version on the same rows, and it never goes dark.

Two real versions on a small lake that is drawn here; then their files are broken on purpose.
"""

import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, Fenced
from tiltyard.judge import scoring, shadow
from tiltyard.prepare import frame, truth
from tiltyard.records import ShadowSummary, VersionFacts
from tiltyard.spec import Cost
from tiltyard.succession import Roles
from tiltyard.tables import Table
from tiltyard.target import YES_OR_NO
from tiltyard.train import registry
from tiltyard.train.encoding import Encoding

FIRST = datetime(2016, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NIGHTS, PER_NIGHT = 24, 30
ROLES = Roles(champion=1, previous=None, challengers=(2,), first=1)


def draw(arena, spec):
    """NIGHTS days of PER_NIGHT tickets; `weight` foretells the label, which comes after two days."""
    rng = np.random.default_rng(7)
    count = NIGHTS * PER_NIGHT
    at = [FIRST + timedelta(days=place // PER_NIGHT, minutes=place % PER_NIGHT) for place in range(count)]
    weight = rng.random(count)
    base = pd.DataFrame({"ticket_id": [f"t{place:04d}" for place in range(count)]}).assign(
        event_time=at, available_at=at
    )
    spine = base.assign(prediction_time=at)
    features = base.assign(weight=weight, priority=np.where(rng.random(count) < 0.3, "high", "low"))
    features.loc[features.index % 17 == 0, "priority"] = None
    kinds = {"ticket_id": "varchar", "event_time": "timestamptz", "available_at": "timestamptz"}
    for table, rows, more in (
        (f"spines.spn_{spec.name}", spine, {"prediction_time": "timestamptz"}),
        (f"features.ftr_ticket__{spec.name}", features, {"weight": "double", "priority": "varchar"}),
    ):
        arena.rails.lake.ensure(Table(table, kinds | more))
        arena.rails.lake.replace(table, {}, rows, message="drawn")
    labels = spine.assign(label=rng.random(count) < weight, available_at=[time + 2 * DAY for time in at])
    arena.label(spec, labels)


def logistic(matrix, label, strength):
    """A small model in ONNX, with the input and output names that every version has."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(SimpleImputer(), LogisticRegression(C=strength)).fit(matrix, label)
    names = [("input", FloatTensorType([None, matrix.shape[1]]))]
    return to_onnx(
        model, initial_types=names, options={id(model): {"zipmap": False}}, target_opset=15
    ).SerializeToString()


def register(arena, spec, as_of, strength):
    """A version from the matured frame of a night: two logistic regressions, without tuning and plots."""
    found = frame.training(arena.rails, spec, as_of, arena.rails.lake.snapshot())
    table = pd.read_parquet(found.path)
    encoding = Encoding.fit(table, found.features)
    matrix, label = encoding.transform(table), table["label"].to_numpy(dtype=bool)
    sample = io.BytesIO()
    table[list(encoding.features)].assign(label=label, score=0.5).to_parquet(sample)
    candidate = registry.Candidate(
        as_of=as_of,
        inputs=str(as_of),
        files={
            "model.onnx": logistic(matrix, label, strength),
            "light.onnx": logistic(matrix, label, 0.03),
            "encoding.json": encoding.to_json().encode(),
            "reference.json": b"{}",
            "reference.parquet": sample.getvalue(),
        },
        features=encoding.features,
        params={},
        metrics={},
        tags={},
        plots={},
        facts=VersionFacts(),
        requested_by="drift",
        description="",
    )
    row, _ = registry.register(arena.rails, spec, candidate, arena.rails.ledger.claim(f"training/{spec.name}/{as_of}"))
    return row.version


@pytest.fixture(scope="module")
def trained(arena):
    spec = arena.spec("tickets")
    draw(arena, spec)
    assert register(arena, spec, FIRST + 14 * DAY, 3.0) == 1
    assert register(arena, spec, FIRST + 18 * DAY, 0.3) == 2
    return spec


def night_rows(arena, spec, as_of):
    return frame.build(arena.rails, spec, as_of - DAY, as_of, as_of, arena.rails.lake.snapshot())


def stored(arena, spec, as_of):
    return arena.rails.lake.query(
        "select * from {ops.prediction} where model = $model and night = $night order by request_id",
        as_of,
        {"model": spec.name, "night": night_closing(as_of)},
    )


@pytest.fixture
def broken(arena, trained):
    """break(version): its files are gone, from the store, the cache and memory; all is put back afterwards."""
    moved = []

    def destroy(version):
        registry._scorers.clear()
        places = [arena.rails.settings.home / "cache" / trained.name / str(version)]
        run = arena.rails.ledger.version(trained.name, version).facts.artifacts
        places.append(arena.rails.settings.home / "mlflow" / run)
        for place in places:
            if place.exists():
                place.rename(place.with_name(place.name + "-away"))
                moved.append(place)

    yield destroy
    for place in moved:
        shutil.rmtree(place, ignore_errors=True)
        place.with_name(place.name + "-away").rename(place)
    registry._scorers.clear()


def test_without_a_champion_the_safe_default_is_served_and_challengers_score_unseen(arena, trained):
    as_of = FIRST + 20 * DAY
    summary = shadow.score(arena.rails, trained, as_of)
    rows = stored(arena, trained, as_of)
    assert summary.tiers == {"safe_default": PER_NIGHT}
    assert summary.reasons == {"no_champion": PER_NIGHT}
    assert rows.groupby("role").size().to_dict() == {"challenger": 2 * PER_NIGHT, "safe_default": PER_NIGHT}
    served = rows[rows["tier"] != "shadow"]
    assert served["version"].isna().all()
    assert (served["score"] == 0.5).all()
    assert rows["request_id"].is_unique
    assert set(rows["snapshot"]) == {summary.snapshot}


def test_twice_is_once(arena, trained):
    as_of = FIRST + 20 * DAY
    shadow.shadow_night(arena.rails, trained, as_of)
    first = stored(arena, trained, as_of)
    shadow.shadow_night(arena.rails, trained, as_of)
    pd.testing.assert_frame_equal(
        first.drop(columns="scored_at"), stored(arena, trained, as_of).drop(columns="scored_at")
    )


def test_a_night_that_is_answered_by_the_hour_says_what_it_would_have_said_at_once(arena, trained):
    as_of, audit = FIRST + 19 * DAY, ["scored_at", "available_at"]
    by_the_hour = trained.prediction.model_copy(update={"every": timedelta(hours=1)})
    hourly = trained.model_copy(update={"prediction": by_the_hour})
    whole = shadow.score(arena.rails, trained, as_of)
    at_once = stored(arena, trained, as_of)
    own = f"delete from lake.ops.prediction where model = '{trained.name}' and night = '{night_closing(as_of)}'"
    arena.rails.lake.connection.execute(own)
    hour = shadow.answer_hour(arena.rails, hourly, as_of - 23 * timedelta(hours=1))
    assert (hour.rows, hour.answered, hour.tiers) == (PER_NIGHT, PER_NIGHT, {"safe_default": PER_NIGHT})
    first = as_of - DAY + timedelta(minutes=10)  # from here on as if the rows had become known after the hour
    arena.rails.lake.connection.execute(f"{own} and prediction_time >= '{first.isoformat()}'")
    assert shadow.score(arena.rails, hourly, as_of) == whole
    made = stored(arena, trained, as_of)
    pd.testing.assert_frame_equal(made.drop(columns=audit), at_once.drop(columns=audit))
    by_hour = made["available_at"] < as_of
    assert (made["prediction_time"] < first).equals(by_hour)
    assert set(made.loc[by_hour, "version"].dropna()) == {1, 2}
    assert shadow.answer_hour(arena.rails, hourly, as_of - 23 * timedelta(hours=1)).answered == 0


def test_a_night_without_tickets_says_so_and_is_evaluated_all_the_same(arena, trained):
    as_of = FIRST + (NIGHTS + 3) * DAY
    summary = shadow.shadow_night(arena.rails, trained, as_of)
    assert summary.rows == 0
    assert "nothing to score" in summary.note
    assert stored(arena, trained, as_of).empty
    assert arena.rails.ledger.stage_runs(ShadowSummary, trained.name)[night_closing(as_of)].status == "done"


def test_champion_and_challenger_score_the_same_rows(arena, trained):
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    predictions, failed, _ = scoring.predict(arena.rails, trained, ROLES, rows)
    assert failed == {}
    champion, challenger = (predictions[predictions["version"] == number] for number in (1, 2))
    assert list(champion["entity_id"]) == list(challenger["entity_id"]) == list(rows["ticket_id"])
    assert set(champion["tier"]) == {"champion"}
    assert set(champion["tier_reason"]) == {"in_service"}
    assert set(challenger["tier"]) == {"shadow"}
    assert {json.loads(text)["priority"] for text in predictions["slices"]} <= {"high", "low", "missing"}
    assert np.allclose(champion["score"], registry.load(arena.rails, trained.name, 1).score(rows))


def test_a_row_that_a_view_says_nothing_of_any_more_gets_the_safe_default_and_the_others_their_score(arena, trained):
    """Of a view that is not good on the night nothing is left within max_feature_age."""
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    view_of = {feature.name: feature.view for feature in frame.features(arena.rails, trained)}
    view = view_of[registry.load(arena.rails, trained.name, 1).features[0]]
    gaps = scoring.Gaps({view: np.arange(len(rows)) == 0}, view_of, unread=False)
    predictions, _, _ = scoring.predict(arena.rails, trained, ROLES, rows, gaps)
    usual, _, _ = scoring.predict(arena.rails, trained, ROLES, rows)
    served = predictions[predictions["tier"] != "shadow"].set_index("entity_id")
    first = str(rows[trained.key].iloc[0])
    assert served.index.sort_values().tolist() == sorted(rows[trained.key].astype(str)), "an answer for every row"
    assert tuple(served.loc[first, ["tier", "tier_reason"]]) == ("safe_default", "champion_features_stale")
    others = predictions[predictions["entity_id"] != first].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, usual[usual["entity_id"] != first].reset_index(drop=True))


def test_a_version_lacks_what_it_was_trained_with_alone(arena, trained):
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    scorer = registry.load(arena.rails, trained.name, 1)
    view_of = dict.fromkeys(scorer.features, "own") | {"other": "theirs"}
    first = np.arange(len(rows)) == 0
    lacking = {
        "a view of its own": (scoring.Gaps({"own": first}, view_of, unread=False), first),
        "another's": (scoring.Gaps({"theirs": first}, view_of, unread=False), ~first & first),
        "one that cannot be read, and has nothing of its own": (scoring.Gaps({}, view_of, unread=True), ~first & first),
        "one that cannot be read, with a column of its own": (
            scoring.Gaps({}, dict.fromkeys(scorer.features[1:], "own"), unread=True),
            first | ~first,
        ),
    }
    for what, (gaps, expected) in lacking.items():
        assert gaps.of(scorer, len(rows)).tolist() == expected.tolist(), what


def test_a_champion_that_cannot_be_loaded_leaves_the_night_to_the_previous(arena, trained, broken):
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    broken(2)
    roles = Roles(champion=2, previous=1, challengers=(), first=1)
    predictions, failed, _ = scoring.predict(arena.rails, trained, roles, rows)
    assert len(predictions) == PER_NIGHT
    assert set(predictions["tier"]) == {"previous"}
    assert set(predictions["tier_reason"]) == {"champion_not_loaded"}
    assert failed["2"].startswith("not loaded")


def test_when_no_version_can_be_loaded_the_safe_default_is_served(arena, trained, broken):
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    broken(1)
    predictions, _, _ = scoring.predict(arena.rails, trained, replace(ROLES, challengers=()), rows)
    assert set(predictions["tier"]) == {"safe_default"}
    assert set(predictions["tier_reason"]) == {"champion_not_loaded"}


def test_a_broken_challenger_is_recorded_and_does_not_touch_what_is_served(arena, trained, broken):
    as_of = FIRST + 21 * DAY
    broken(2)
    summary = shadow.score(arena.rails, trained, as_of)
    assert list(summary.failed) == ["2"]
    assert summary.tiers == {"safe_default": PER_NIGHT}
    assert set(stored(arena, trained, as_of)["version"].dropna()) == {1}
    (event,) = arena.rails.ledger.events(trained.name, "version_did_not_score")
    assert event.detail["version"] == "2"


def test_an_attempt_that_was_taken_over_writes_nothing(arena, trained, monkeypatch):
    as_of = FIRST + 22 * DAY
    build = frame.build

    def overtaken(rails, *rest):
        rows = build(rails, *rest)
        rails.ledger.claim(f"shadow/{trained.name}/{night_closing(as_of)}")
        return rows

    monkeypatch.setattr(frame, "build", overtaken)
    with pytest.raises(Fenced, match="newer attempt"):
        shadow.score(arena.rails, trained, as_of)
    assert stored(arena, trained, as_of).empty


class Halting:
    """A heavy model that has no number for every other row; its light twin has."""

    target = YES_OR_NO

    def score(self, rows):
        return np.where(np.arange(len(rows)) % 2, np.nan, 0.9)

    def score_light(self, rows):
        return np.full(len(rows), 0.2)


def test_rows_without_a_number_go_to_the_light_twin_one_by_one(arena, trained):
    rows = night_rows(arena, trained, FIRST + 20 * DAY)
    scores = {1: scoring._score(Halting(), rows, 1)}
    tier, reason, light = scoring._serve(trained, replace(ROLES, challengers=()), rows, {}, scores, {1: Halting()})
    assert list(tier[:4]) == ["champion", "light", "champion", "light"]
    assert list(reason[:2]) == ["in_service", "champion_no_score"]
    assert light[1] == 0.2
    assert "15 of 30 rows have no score" in scores[1].error


def test_a_slice_that_no_feature_view_has_is_the_users_mistake(arena, trained):
    rows = night_rows(arena, trained, FIRST + 20 * DAY).drop(columns="priority")
    with pytest.raises(BadInput, match=r"gate\.slices names 'priority'"):
        scoring.predict(arena.rails, trained, ROLES, rows)


def test_an_id_is_the_same_every_time_and_differs_by_who_answered():
    ids = [scoring.request_id("m", who, "t1", FIRST) for who in ("1", "1/light", "2", "safe_default")]
    assert len(set(ids)) == 4
    elsewhere = FIRST.astimezone(datetime.now().astimezone().tzinfo)
    assert scoring.request_id("m", "1", "t1", elsewhere) == ids[0]


def test_evaluation_counts_and_compares_on_matured_cohorts(arena, trained):
    for place in range(18, 24):
        shadow.score(arena.rails, trained, FIRST + place * DAY)
    as_of = FIRST + 24 * DAY
    summary = shadow.shadow_night(arena.rails, trained, as_of)
    rows = arena.rails.lake.query(
        "select * from {ops.evaluation} where model = 'tickets' and night = $night",
        as_of,
        {"night": night_closing(as_of)},
    )
    whole = rows[rows["slice"] == "all"].set_index("role")
    assert set(rows["slice"]) == {"all", "priority=high", "priority=low", "priority=missing"}
    assert whole.loc["safe_default", "brier"] == pytest.approx(0.25)
    assert (rows["available_at"] == as_of).all()
    sizes = whole.reset_index().set_index("version")
    assert sizes.loc[1, "matured"] == 5 * PER_NIGHT  # the nights of days 18 to 22; version 1 scored them all
    assert sizes.loc[1, "immature"] == 2 * PER_NIGHT
    assert sizes.loc[1, "brier"] < 0.25
    assert sizes.loc[1, "brier_low"] < sizes.loc[1, "brier"] < sizes.loc[1, "brier_high"]
    parts = rows[(rows["version"] == 1) & (rows["slice"] != "all")]
    assert parts["matured"].sum() == sizes.loc[1, "matured"]
    assert summary.metrics["1"].matured == 5 * PER_NIGHT


def test_where_errors_have_a_price_the_light_twin_scores_every_row_unseen(arena, trained, monkeypatch):
    as_of = FIRST + 22 * DAY
    night = night_closing(as_of)
    monkeypatch.setattr(type(arena.rails.ledger), "roles", lambda *_, **__: ROLES)
    priced = trained.gate.model_copy(update={"cost": Cost(false_positive=1, false_negative=4)})
    shadow.score(arena.rails, trained.model_copy(update={"gate": priced}), as_of)
    twins = arena.rails.lake.query(
        "select * from {ops.light_score} where model = $model and night = $night", as_of,
        {"model": trained.name, "night": night},
    )  # fmt: skip
    rows = night_rows(arena, trained, as_of)
    light = registry.load(arena.rails, trained.name, 1).score_light(rows)
    assert dict(zip(twins["entity_id"], twins["score"], strict=True)) == pytest.approx(
        dict(zip(rows["ticket_id"], light, strict=True))
    )
    assert set(twins["version"]) == {1}
    later = as_of + 3 * DAY
    found = truth.answered(arena.rails, trained, later, night).query(f"night == {night.toordinal()}")
    assert len(found) == PER_NIGHT, "one row per answer, and no other version's"
    assert found["light"].notna().all()
    whole = truth.answered(arena.rails, trained, later, night - 5 * DAY)
    assert whole["light"].isna().sum() == len(whole) - PER_NIGHT, "nights on which it was not asked for have none"


def test_a_twin_that_does_not_score_keeps_nobodys_answers_back(arena, trained, broken, monkeypatch):
    as_of = FIRST + 21 * DAY
    monkeypatch.setattr(type(arena.rails.ledger), "roles", lambda *_, **__: ROLES)
    broken(1)
    priced = trained.gate.model_copy(update={"cost": Cost(false_positive=1, false_negative=4)})
    summary = shadow.score(arena.rails, trained.model_copy(update={"gate": priced}), as_of)
    assert sum(summary.tiers.values()) == PER_NIGHT
