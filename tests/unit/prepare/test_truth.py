"""Joining predictions with labels: whole cohorts, the label as it was known, and whose rows count."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from tiltyard.prepare import truth

FIRST = datetime(2016, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def predictions(rows):
    """(version, entity, day, score) and what differs, as a frame."""
    return pd.DataFrame(
        {
            "version": pd.array([row[0] for row in rows], dtype="Int32"),
            "role": ["safe_default" if row[0] is None else "challenger" for row in rows],
            "entity_id": [row[1] for row in rows],
            "prediction_time": [FIRST + row[2] * DAY + timedelta(hours=9) for row in rows],
            "score": [row[3] for row in rows],
        }
    )


def labels(rows):
    """(entity, day, label, known on day)."""
    return pd.DataFrame(
        {
            "ticket_id": [row[0] for row in rows],
            "prediction_time": [FIRST + row[1] * DAY + timedelta(hours=9) for row in rows],
            "label": [row[2] for row in rows],
            "available_at": [FIRST + row[3] * DAY for row in rows],
        }
    )


def test_only_the_wanted_versions_since_the_wanted_night(arena):
    spec = arena.spec("wanted")
    arena.label(spec, labels([("a", 0, True, 2), ("b", 1, False, 3)]))
    arena.predict(spec, predictions([(v, e, d, 0.1) for v in (None, 1, 2) for e, d in (("a", 0), ("b", 1))]))
    as_of = FIRST + 5 * DAY

    def found(**choice):
        rows = truth.matured(arena.rails, spec, as_of, **choice)
        return [(None if pd.isna(row.version) else row.version, row.entity_id) for row in rows.itertuples()]

    assert found() == [(None, "a"), (1, "a"), (2, "a"), (None, "b"), (1, "b"), (2, "b")]
    assert found(versions=(1,)) == [(1, "a"), (1, "b")]
    assert found(versions=(None,), since=(FIRST + 2 * DAY).date()) == [(None, "b")]
    assert found(versions=()) == []
    assert truth.nights(arena.rails, spec, as_of) == {
        number: [(FIRST + DAY).date(), (FIRST + 2 * DAY).date()] for number in (1, 2)
    }


def test_a_correction_is_seen_from_when_it_was_known(arena):
    spec = arena.spec("corrected")
    arena.label(spec, labels([("a", 0, True, 2), ("a", 0, False, 9)]))
    arena.predict(spec, predictions([(1, "a", 0, 0.1)]))
    assert list(truth.matured(arena.rails, spec, FIRST + 5 * DAY)["label"]) == [1]
    assert list(truth.matured(arena.rails, spec, FIRST + 9 * DAY)["label"]) == [0]
    at = FIRST + timedelta(hours=9)
    label = truth.truth_of(arena.rails, spec, "a", at, FIRST + 8 * DAY)
    assert label is not None
    assert label.label is True
    assert truth.truth_of(arena.rails, spec, "a", at, FIRST + DAY) is None


def test_positive_false_turns_the_label_round(arena):
    spec = arena.spec("turned", label={"table": "lbl_turned", "horizon": "2d", "positive": False})
    arena.label(spec, labels([("a", 0, True, 2), ("b", 0, False, 2)]))
    arena.predict(spec, predictions([(1, "a", 0, 0.1), (1, "b", 0, 0.1)]))
    assert list(truth.matured(arena.rails, spec, FIRST + 5 * DAY)["label"]) == [0, 1]


def test_the_light_twins_scores_are_not_its_versions(arena):
    spec = arena.spec("twin")
    arena.label(spec, labels([("a", 0, True, 2), ("b", 0, False, 2)]))
    rows = predictions([(1, "a", 0, 0.1), (1, "b", 0, 0.9)]).assign(tier=["champion", "light"])
    arena.predict(spec, rows)
    as_of = FIRST + 5 * DAY
    assert list(truth.matured(arena.rails, spec, as_of, versions=(1,))["entity_id"]) == ["a"]
    assert list(truth.matured(arena.rails, spec, as_of)["entity_id"]) == ["a", "b"]
    assert truth.counts(arena.rails, spec, as_of).matured == 2
    assert truth.by_version(arena.rails, spec, as_of)[0].matured == 1
    beside = truth.side_by_side(arena.rails, spec, as_of, [1])
    assert list(beside["v1"].fillna(-1)) == [0.1, -1], "a row of the cohort all the same"


def test_an_early_label_is_known_to_be_early_and_not_to_be_had(arena):
    spec = arena.spec("early_bird")
    arena.label(spec, labels([("a", 0, True, 2), ("b", 4, True, 4), ("c", 4, True, 9)]))
    arena.predict(spec, predictions([(1, "a", 0, 0.1), (2, "a", 0, 0.2), (1, "b", 4, 0.3), (1, "c", 4, 0.4)]))
    beside = truth.side_by_side(arena.rails, spec, FIRST + 5 * DAY, [1, 2])
    assert list(beside["label"].fillna(-1)) == [1, -1, -1]
    assert list(beside["is_matured"]) == [True, False, False]
    assert list(beside["is_early"]) == [False, True, False]
    assert list(beside["night"]) == [(FIRST + days * DAY).date().toordinal() for days in (1, 5, 5)]
    assert list(beside["v2"].fillna(-1)) == [0.2, -1, -1]
    assert list(beside["slice_priority"]) == ["high"] * 3


def test_counts_per_slice_add_up(arena):
    spec = arena.spec("sliced")
    arena.label(spec, labels([("a", 0, True, 2), ("b", 0, False, 2), ("d", 3, True, 4)]))
    rows = predictions([(1, name, day, 0.5) for name, day in (("a", 0), ("b", 0), ("c", 0), ("d", 3), ("e", 3))])
    rows["slices"] = ['{"priority": "high"}', '{"priority": "it\'s \\"low\\""}', "{}", '{"priority": "high"}', "{}"]
    arena.predict(spec, rows)
    counts = {row.slice: row for row in truth.by_version(arena.rails, spec, FIRST + 4 * DAY)}
    assert list(counts) == ["all", "priority=high", 'priority=it\'s "low"', "priority=missing"]
    for name in ("matured", "missing", "immature", "early"):
        parts = [getattr(row, name) for part, row in counts.items() if part != "all"]
        assert sum(parts) == getattr(counts["all"], name)
    whole = counts["all"]
    assert (whole.matured, whole.missing, whole.immature, whole.early) == (2, 1, 2, 1)


def test_a_label_that_was_not_published_is_not_seen(arena):
    spec = arena.spec("unpublished")
    arena.label(spec, labels([("a", 0, True, 2)]))
    before = arena.rails.lake.snapshot()
    arena.predict(spec, predictions([(1, "a", 0, 0.1), (1, "b", 0, 0.1)]))
    arena.label(spec, labels([("b", 0, True, 2)]))
    arena.publish(before)
    assert list(truth.matured(arena.rails, spec, FIRST + 5 * DAY)["entity_id"]) == ["a"]
    arena.publish(arena.rails.lake.snapshot())
    assert list(truth.matured(arena.rails, spec, FIRST + 5 * DAY)["entity_id"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("as_of", "cutoff"),
    [("2016-03-05T00:00", "2016-03-03"), ("2016-03-05T23:59", "2016-03-03"), ("2016-03-06T00:00", "2016-03-04")],
)
def test_the_cutoff_is_a_midnight(arena, as_of, cutoff):
    found = truth.cutoff(arena.spec("cut"), datetime.fromisoformat(as_of).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(cutoff).replace(tzinfo=UTC)
