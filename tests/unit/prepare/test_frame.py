"""Frames: what is in them, what names them, and what they refuse."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard.errors import BadInput
from tiltyard.prepare import frame, transform
from tiltyard.rails import Rails
from tiltyard.records import FeatureValue, Publication, TableState
from tiltyard.spec import Label, Spec
from tiltyard.train import leakage_gate

AS_OF = instant("2024-03-01")


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return small_spec(tmp_path, max_feature_age="10d")


@pytest.fixture
def filled(rails: Rails) -> Iterator[Rails]:
    """Ten visits a day apart, three features' worth of history, labels a day after each visit."""
    days = [instant("2024-02-01") + timedelta(days=number) for number in range(10)]
    fill(rails, SPINES, [{"visit_id": f"v{n}", "shop_id": "s", "prediction_time": day} for n, day in enumerate(days)])
    fill(
        rails,
        FEATURES,
        [
            {"shop_id": "s", "event_time": day, "size": number, "mood": "calm", "is_open": None}
            for number, day in enumerate(days[:3])
        ],
    )
    fill(
        rails,
        LABELS,
        [
            {"visit_id": f"v{n}", "prediction_time": day, "label": n % 2 == 0, "event_time": day + timedelta(days=1)}
            for n, day in enumerate(days[:9])
        ],
    )
    yield rails


def test_features_are_the_columns_of_the_views_and_know_how_to_be_read(filled: Rails, spec: Spec) -> None:
    assert [(feature.name, feature.view, feature.kind) for feature in frame.features(filled, spec)] == [
        ("size", "ftr_shop__state", "numeric"),
        ("mood", "ftr_shop__state", "categorical"),
        ("is_open", "ftr_shop__state", "boolean"),
    ]


def test_a_frame_has_every_spine_row_of_the_interval_once_in_order(filled: Rails, spec: Spec) -> None:
    built = frame.build(filled, spec, instant("2024-02-03"), instant("2024-02-05"), AS_OF)

    assert list(built["visit_id"]) == ["v2", "v3"]
    assert list(built.columns) == [
        "visit_id", "prediction_time", "size", "mood", "is_open",
        "ftr_shop__state__event_time", "ftr_shop__state__available_at",
    ]  # fmt: skip
    assert built["size"].dtype == "float64"


def test_a_row_older_than_the_spec_allows_counts_as_missing(filled: Rails, tmp_path: Path) -> None:
    built = frame.build(
        filled, small_spec(tmp_path, max_feature_age="2d"), instant("2024-02-01"), instant("2024-02-11"), AS_OF
    )

    assert list(built["size"].fillna(-1)) == [0, 1, 2, 2, 2, -1, -1, -1, -1, -1]
    assert built["ftr_shop__state__event_time"].isna().sum() == 5


def test_training_holds_matured_cohorts_only(filled: Rails, spec: Spec) -> None:
    trained = frame.training(filled, spec, instant("2024-02-08"))

    assert list(trained.read()["visit_id"]) == ["v0", "v1", "v2", "v3", "v4", "v5"]  # 6 February + 2 days of horizon
    assert trained.unlabelled == 0
    assert trained.end == instant("2024-02-06") + timedelta(microseconds=1)


def test_training_counts_and_leaves_out_rows_without_a_label(filled: Rails, spec: Spec) -> None:
    trained = frame.training(filled, spec, AS_OF)

    assert (trained.rows, trained.unlabelled) == (9, 1)
    assert "v9" not in set(trained.read()["visit_id"])


def test_training_holds_out_the_labels_that_are_trusted(filled: Rails, spec: Spec) -> None:
    whole = frame.training(filled, spec, AS_OF).read()
    audited = [str(name) for name in whole[spec.key].iloc[:2]]
    trusted = {"column": spec.key, "values": audited}
    label = Label.model_validate(spec.label.model_dump() | {"trusted": trusted})
    held_out = frame.training(filled, spec.model_copy(update={"label": label}), AS_OF)
    assert {*whole[spec.key]} - {*held_out.read()[spec.key]} == {*audited}
    assert held_out.unlabelled == frame.training(filled, spec, AS_OF).unlabelled
    label = Label.model_validate(spec.label.model_dump() | {"trusted": trusted | {"column": "checked_by"}})
    with pytest.raises(BadInput, match="has no column checked_by"):
        frame.training(filled, spec.model_copy(update={"label": label}), AS_OF)


def test_the_same_night_gives_the_same_file(filled: Rails, spec: Spec) -> None:
    first = frame.training(filled, spec, AS_OF)
    fill(filled, FEATURES, [{"shop_id": "s", "event_time": AS_OF + timedelta(days=1), "size": 99}])
    again = frame.training(filled, spec, AS_OF)

    assert first.snapshot != again.snapshot
    assert (first.digest, first.path) == (again.digest, again.path)
    assert [path.name for path in filled.settings.frames.iterdir()] == [f"{first.digest}.parquet"]


def test_a_frame_reads_the_snapshot_it_is_told(filled: Rails, spec: Spec) -> None:
    before = filled.lake.snapshot()
    fill(filled, FEATURES, [{"shop_id": "s", "event_time": instant("2024-02-04"), "size": 99}])

    def sizes(snapshot: int) -> list[Any]:
        built = frame.build(filled, spec, instant("2024-02-04"), instant("2024-02-05"), AS_OF, snapshot)
        return list(built["size"])

    assert sizes(before) == [2]
    assert sizes(filled.lake.snapshot()) == [99]


def test_a_view_that_is_not_good_is_read_as_of_its_last_good_night_also_from_a_later_snapshot(
    filled: Rails, spec: Spec
) -> None:
    """A hindcast builds all its nights into one snapshot: that alone would not hold a night back."""
    view = FEATURES.split(".")[1]

    def sizes(state: str) -> list[Any]:
        held = TableState(
            night=instant("2024-02-06").date(),
            table=view,
            state="held" if state == "held" else "published",
            snapshot=filled.lake.snapshot(),
            good_night=instant("2024-02-02").date(),
        )
        publication = Publication(snapshot=filled.lake.snapshot(), tables={view: held})
        read = frame.build(filled, spec, instant("2024-02-02"), instant("2024-02-07"), AS_OF, publication)
        return list(read["size"].fillna(-1))

    assert sizes("published") == [1, 2, 2, 2, 2]
    for _ in ("without kept answers", "with them"):
        assert sizes("held") == [1, 1, 1, 1, 1]
        keep_answers(filled)


def keep_answers(rails: Rails) -> None:
    """What dbt does after it has built a view."""
    macros = transform.macro_path(rails.settings)
    answers = frame.macro(macros, "answers", f"lake.{FEATURES}", "shop_id", ["size", "mood", "is_open"])
    rails.lake.connection.execute(f"create or replace table lake.{FEATURES}__answers as {answers}")


def used(rails: Rails, spec: Spec, **read: Any) -> tuple[bool, list[Any]]:
    """Whether the kept answers were read, and the sizes of a frame of five visits."""
    read = {"start": instant("2024-02-02"), "end": instant("2024-02-07"), "as_of": AS_OF, **read}
    read.setdefault("at", rails.lake.snapshot())
    sizes = list(frame.build(rails, spec, **read)["size"].fillna(-1))
    return f"{FEATURES.split('.')[1]}__answers" in frame.select(rails, spec, **read), sizes


def test_kept_answers_are_read_while_they_hold(filled: Rails, spec: Spec) -> None:
    assert used(filled, spec) == (False, [1, 2, 2, 2, 2])
    keep_answers(filled)
    kept = filled.lake.snapshot()
    assert used(filled, spec) == (True, [1, 2, 2, 2, 2])

    fill(filled, FEATURES, [{"shop_id": "s", "event_time": instant("2024-02-04"), "size": 99}])
    assert used(filled, spec) == (False, [1, 2, 99, 99, 99])  # the view was written to, its answers were not
    keep_answers(filled)
    assert used(filled, spec) == (True, [1, 2, 99, 99, 99])
    assert used(filled, spec, at=kept) == (True, [1, 2, 2, 2, 2])
    assert used(filled, spec, at=kept - 1) == (False, [1, 2, 2, 2, 2])

    filled.lake.connection.execute(f"delete from lake.{FEATURES} where size = 99")
    assert used(filled, spec) == (False, [1, 2, 2, 2, 2])


def test_kept_answers_hold_when_files_are_compacted_and_not_when_the_record_has_expired(
    filled: Rails, spec: Spec
) -> None:
    fill(filled, FEATURES, [{"shop_id": "s", "event_time": instant("2024-02-04"), "size": 99}])
    keep_answers(filled)
    filled.lake.connection.execute("call ducklake_flush_inlined_data('lake')")
    filled.lake.connection.execute("call ducklake_merge_adjacent_files('lake')")
    assert used(filled, spec) == (True, [1, 2, 99, 99, 99])

    fill(filled, LABELS, [])
    filled.lake.connection.execute(f"delete from lake.{LABELS}")
    filled.lake.connection.execute("call ducklake_expire_snapshots('lake', older_than => now())")
    assert used(filled, spec) == (False, [1, 2, 99, 99, 99])


def test_a_frame_of_times_that_have_not_come_prunes_what_was_known(filled: Rails, spec: Spec) -> None:
    """Known on the 2nd: what happens on the 5th. What was written later hides it, and was not known then."""
    known, later = instant("2024-02-02"), instant("2024-02-04")
    fill(filled, SPINES, [{"visit_id": "ahead", "shop_id": "s", "prediction_time": instant("2024-02-06 12:00"),
                           "available_at": known}])  # fmt: skip
    fill(
        filled,
        FEATURES,
        [
            {"shop_id": "s", "event_time": instant("2024-02-05"), "available_at": known, "size": 5},
            {"shop_id": "s", "event_time": instant("2024-02-05"), "available_at": later, "size": 7},
        ],
    )
    keep_answers(filled)
    read = {"start": instant("2024-02-06 12:00"), "end": instant("2024-02-06 13:00")}

    assert used(filled, spec, **read, as_of=known) == (False, [5])
    assert used(filled, spec, **read) == (True, [7])


def test_a_damaged_frame_is_refused(filled: Rails, spec: Spec) -> None:
    trained = frame.training(filled, spec, AS_OF)
    content = bytearray(trained.path.read_bytes())
    content[len(content) // 2] ^= 1
    trained.path.write_bytes(content)

    for read in (
        trained.read,
        lambda: trained.table(["label"]),
        lambda: leakage_gate.check_frame(filled, spec, trained),
    ):
        with pytest.raises(BadInput, match="is damaged"):
            read()


@pytest.mark.parametrize("harm", ["flipped", "empty"])
def test_what_lies_under_a_frames_name_and_is_not_it_is_made_anew(
    filled: Rails, spec: Spec, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All labels turned on the disk, or nothing there after a power cut: the name alone is no proof."""
    honest = frame.training(filled, spec, AS_OF)
    content, rows = honest.path.read_bytes(), honest.read()
    if harm == "empty":
        honest.path.write_bytes(b"")
    else:
        rows.assign(label=~rows["label"].astype(bool)).to_parquet(honest.path)
    again = frame.training(filled, spec, AS_OF)
    assert (again.digest, again.path.read_bytes()) == (honest.digest, content)
    assert "it is made anew" in caplog.text
    pd.testing.assert_frame_equal(again.read(), rows)


def test_no_matured_cohort_is_said_in_a_sentence(filled: Rails, spec: Spec) -> None:
    with pytest.raises(BadInput, match="No label of small has matured by 2024-02-02"):
        frame.training(filled, spec, instant("2024-02-02"))


def test_explain_tells_where_every_value_came_from(filled: Rails, spec: Spec) -> None:
    rows = frame.feature_values(filled, spec, "v3", instant("2024-02-04"))

    assert rows[0] == FeatureValue(
        feature="size",
        value=2.0,
        view="ftr_shop__state",
        event_time=instant("2024-02-03"),
        available_at=instant("2024-02-03"),
    )
    assert rows[2].value is None
    with pytest.raises(BadInput, match="has no row for v4"):
        frame.feature_values(filled, spec, "v4", instant("2024-02-04"))


def test_a_view_that_is_not_there_is_named(filled: Rails, spec: Spec) -> None:
    absent = spec.model_copy(
        update={"prediction": spec.prediction.model_copy(update={"features": ("ftr_shop__absent",)})}
    )

    with pytest.raises(BadInput, match=r"no table 'features\.ftr_shop__absent'"):
        frame.features(filled, absent)


def test_a_column_no_model_can_read_is_named(rails: Rails, spec: Spec) -> None:
    fill(rails, FEATURES, [])
    rails.lake.connection.execute("alter table lake.features.ftr_shop__state add column seen_at timestamptz")

    with pytest.raises(BadInput, match=r"ftr_shop__state\.seen_at is a TIMESTAMP WITH TIME ZONE"):
        frame.features(rails, spec)


def test_missing_values_are_missing_in_every_kind(filled: Rails, spec: Spec) -> None:
    built = frame.build(filled, spec, instant("2024-02-01"), instant("2024-02-02"), AS_OF)
    assert pd.isna(built["is_open"].iloc[0])
