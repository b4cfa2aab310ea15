"""The auditor on anybody's file: the right answer or one clear sentence, never a traceback, never a silent pass."""

import gzip
import json
import os
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from tests.unit.cli.test_cli import tiltyard
from tiltyard.errors import BadInput
from tiltyard.leak import audit, drawing, engine, page, reading, tabular
from tiltyard.leak.audit import Audit
from tiltyard.leak.coverage import covered
from tiltyard.leak.frames import audit_frame
from tiltyard.leak.roles import ARGUMENTS, COMMAND, parse_available_at
from tiltyard.leak.suspicion import KINDS, Untested

DAY = pd.Timedelta(days=1)
HOUR = pd.Timedelta(hours=1)


def honest(rows: int = 600, seed: int = 1) -> pd.DataFrame:
    """Visits of 200 customers; `score` helps a little, `noise` not at all, `since` is known before the prediction."""
    rng = np.random.default_rng(seed)
    at = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 90 * 86_400, rows), unit="s")
    label = rng.random(rows) < 0.3
    return pd.DataFrame(
        {
            "customer": [f"c{number % 200:03d}" for number in range(rows)],
            "at": at.astype("datetime64[us, UTC]"),
            "churned": label,
            "score": rng.normal(0, 1, rows) + 0.5 * label,
            "noise": rng.normal(0, 1, rows),
            "plan": rng.choice(["basic", "plus", "max"], rows),
            "since": (at - pd.to_timedelta(rng.integers(1, 400, rows), unit="D")).astype("datetime64[us, UTC]"),
        }
    )


def saved(frame: pd.DataFrame, folder: Path, name: str = "frame.parquet", **options: Any) -> Path:
    path = folder / name
    frame.to_csv(path, index=False, **options) if ".csv" in name else frame.to_parquet(path, index=False)
    return path


def judged(frame: pd.DataFrame | Path, folder: Path, name: str = "frame.parquet", **roles: Any) -> Audit:
    path = frame if isinstance(frame, Path) else saved(frame, folder, name)
    given = {"label": "churned", "prediction_time": "at", "entity": "customer", "words": COMMAND, **roles}
    return audit.audit(path, **given)


def kinds(found: Audit) -> dict[str, str]:
    return {finding.feature: finding.kind for finding in found.suspicions}


# -- the rules on write times -----------------------------------------------------------------

# |  row      | predicted    | known        |                                               |
# |  in time  | 1 Mar 12:00  | 1 Mar 12:00  | known at that very moment: may be used        |
# |  late     | 1 Mar 12:00  | 1 Mar 12:01  | out: how late, and the row that proves it     |
# |  undated  | 1 Mar 12:00  | -            | a value that nobody can date fails closed     |
# |  no value | 1 Mar 12:00  | 2 Mar 12:00  | nothing was used                              |


def test_each_value_is_held_against_the_time_at_which_it_was_known(tmp_path: Path) -> None:
    frame = honest()
    frame["score_known_at"] = frame["at"]
    assert judged(frame, tmp_path, available_at={"score": "score_known_at"}).verdict == "pass"

    frame.loc[[3, 5], "score_known_at"] += pd.to_timedelta([1, 90], unit="m")
    frame.loc[7, "score_known_at"] = pd.NaT
    frame.loc[9, "score_known_at"] += DAY
    frame.loc[9, "score"] = None
    found = judged(frame, tmp_path, available_at={"score": "score_known_at"})
    assert found.verdict == "fail"
    late, undated = (next(one for one in found.suspicions if one.kind == kind) for kind in list(KINDS)[:2])
    assert (late.severity, late.interval) == ("critical", None)
    assert late.evidence.startswith("2 of 598 values (0.33%) were known only after at, up to 1:30:00 late")
    assert late.examples[0]["customer"] == "c005"
    assert late.examples[0]["score_known_at"] > late.examples[0]["at"]
    assert len(late.examples) == 2
    assert undated.evidence.startswith("1 of 599 values (0.17%) are there while score_known_at is empty")
    assert late.effect == 2 / 598


def test_one_column_may_date_every_feature_and_is_none_itself(tmp_path: Path) -> None:
    frame = honest().assign(known=lambda rows: rows["at"] - HOUR)
    found = judged(frame, tmp_path, available_at=parse_available_at(["known"]))
    assert found.verdict == "pass"
    assert "known" not in found.features
    frame.loc[0, "known"] = frame.loc[0, "at"] + HOUR
    found = judged(frame, tmp_path, available_at=parse_available_at(["known"]))
    assert {one.feature for one in found.suspicions if one.kind == "point_in_time"} == set(found.features)


def test_a_time_may_not_lie_after_its_rows_own_time_unless_it_is_planned(tmp_path: Path) -> None:
    frame = honest()
    frame.loc[4, "since"] = frame.loc[4, "at"] + DAY
    assert kinds(judged(frame, tmp_path)) == {"since": "instant_after_prediction"}
    assert judged(frame, tmp_path, planned=["since"]).verdict == "pass"
    assert judged(frame, tmp_path, ignore=["since"]).verdict == "pass"
    frame = honest().assign(known=lambda rows: rows["at"] - 500 * DAY)
    found = judged(frame, tmp_path, available_at={"since": "known"})
    [since] = [one for one in found.suspicions if one.feature == "since"]
    assert (since.kind, since.effect) == ("later_than_available_at", 1.0)


@pytest.mark.parametrize(("offset", "verdict"), [(0, "pass"), (1, "fail")])
def test_dates_are_compared_by_day(tmp_path: Path, offset: int, verdict: str) -> None:
    frame = honest()
    frame["since"] = (frame["at"] + offset * DAY).dt.date
    assert judged(frame, tmp_path, entity=None).verdict == verdict
    frame["at"] = frame["at"].dt.date
    frame["since"] = pd.to_datetime(frame["since"]) + pd.Timedelta(hours=9)
    assert judged(frame, tmp_path, entity=None).verdict == verdict


def test_duplicated_entities_are_counted_and_shown(tmp_path: Path) -> None:
    frame = honest()
    frame = pd.concat([frame, frame.head(2), frame.head(1)])
    found = judged(frame, tmp_path)
    assert found.verdict == "warn"
    assert "about time" not in found.reason  # this kind is
    [twice] = found.suspicions
    assert twice.kind == "repeated_prediction"
    assert twice.evidence.startswith("2 pairs of customer and at are there more than once: 5 of 603 rows")
    assert [row["customer"] for row in twice.examples] == ["c000", "c001"]
    [once] = judged(pd.concat([honest(), honest().head(1)]), tmp_path).suspicions
    assert once.evidence.startswith("1 pair of customer and at is there more than once: 2 of 601 rows")


# -- evidence from the data itself ------------------------------------------------------------


def test_a_column_that_is_the_label_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    frame = honest().assign(whatever=lambda rows: rows["churned"] * 3.0)
    assert "whatever" in kinds(judged(frame, tmp_path))


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    frame = honest().sort_values("at").assign(whatever=lambda rows: rows["churned"] * 3.0)
    forward, backward = judged(frame, tmp_path), judged(frame.iloc[::-1], tmp_path)
    assert forward.document() == backward.document()


@pytest.mark.parametrize("entity", ["customer", None])
def test_a_sample_is_the_same_for_the_same_file_and_of_whole_entities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entity: str | None
) -> None:
    seen: list[pd.DataFrame] = []
    weigh = audit.evidence.weigh
    monkeypatch.setattr(audit.evidence, "weigh", lambda sample, say: seen.append(sample.frame) or weigh(sample, say))
    monkeypatch.setattr(drawing, "SAMPLE_ROWS", 4_000)
    frame = honest(9_000).assign(customer=[f"c{number % 3_000}" for number in range(9_000)])
    first, second = (judged(frame, tmp_path, entity=entity) for _ in range(2))
    assert 3_000 < first.sampled <= 4_000
    pd.testing.assert_frame_equal(*seen)
    assert first.document() == second.document()
    if entity:
        assert set(seen[0].groupby("customer").size()) == {3}


def test_entities_too_large_to_be_sampled_whole_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "SAMPLE_ROWS", 1_000)
    frame = honest(6_000).assign(customer=[f"c{number % 3}" for number in range(6_000)])
    found = judged(frame, tmp_path)
    assert 800 < found.sampled <= 1_000
    assert any("too large for a sample of whole ones" in note for note in found.notes)


def test_a_history_must_be_of_the_same_entities(tmp_path: Path) -> None:
    frame = honest()
    log = saved(frame[["customer", "at", "plan"]], tmp_path, "log.csv")
    assert judged(frame, tmp_path, history=log, history_as_of="at").verdict == "pass"
    for change, roles, sentence in [
        ({"customer": "x"}, {}, "have no 'customer' in common"),
        ({}, {"history_as_of": "when"}, "--as-of-column: other.csv has no column 'when'"),
        ({}, {"history_as_of": None}, "belong together"),
        ({}, {"entity": None}, "needs --entity"),
    ]:
        other = saved(frame[["customer", "at", "plan"]].assign(**change), tmp_path, "other.csv")
        with pytest.raises(BadInput, match=sentence):
            judged(frame, tmp_path, **{"history": other, "history_as_of": "at", **roles})


# -- what was looked for ----------------------------------------------------------------------


WRITE_TIMES = ("point_in_time", "used_without_available_at", "later_than_available_at")


def test_the_reason_counts_the_kinds_that_were_looked_for_and_says_what_to_give_for_the_others(
    tmp_path: Path,
) -> None:
    """Of 14 kinds of leakage, ten of evidence and four of write times; each is either looked for or asked for, and all
    that a kind lacks is named at once."""
    bare = judged(honest(), tmp_path, entity=None)
    assert bare.verdict == "pass"
    assert bare.coverage.looked_for == (
        "instant_after_prediction", "clock_of_outcome", "too_good", "default_tracks_label", "revised_copy",
    )  # fmt: skip
    assert {gap.kind: gap.give for gap in bare.coverage.not_looked_for} == {
        **dict.fromkeys(WRITE_TIMES, "--available-at"),
        "repeated_prediction": "--entity",
        "constant_over_life": "--entity and several rows per entity",
        **dict.fromkeys(["part_of_outcome_time", "grows_until_outcome"], "--label-time"),
        "changes_only_after_outcome": "--label-time, --entity and --history with --as-of-column",
        "future_in_aggregate": "--entity and --history with --as-of-column",
    }
    assert bare.reason == (
        "Nothing of what was looked for tells what could not have been known at the prediction time. "
        "Of 14 kinds of leakage 5 were looked for; give "
        "--label-time for part of outcome time, grows until outcome and changes only after outcome; "
        "--available-at for point in time, used without available at and later than available at; "
        "--entity for repeated prediction, future in aggregate, changes only after outcome and constant over life; "
        "--history with --as-of-column for future in aggregate and changes only after outcome; "
        "several rows per entity for constant over life."
    )
    assert bare.document().reason == bare.reason
    in_python = judged(honest(), tmp_path, entity=None, words=ARGUMENTS)
    assert "; give label_time for part" in in_python.reason
    assert "; history with history_as_of for future in aggregate" in in_python.reason

    frame = honest(6_000).assign(known=lambda rows: rows["at"] - HOUR)
    wait = pd.to_timedelta(np.random.default_rng(4).uniform(1, 60, len(frame)), unit="D")
    frame["ended"] = frame["at"] + wait
    whole = judged(
        frame, tmp_path, label_time="ended", available_at={"score": "known"},
        history=saved(frame[["customer", "at", "plan"]], tmp_path, "log.parquet"), history_as_of="at",
    )  # fmt: skip
    assert whole.coverage.not_looked_for == ()
    assert whole.reason.endswith("All 14 kinds of leakage were looked for.")


def test_one_row_per_entity_and_too_few_rows_are_asked_for_as_such(tmp_path: Path) -> None:
    single = honest().drop_duplicates("customer")
    gives = {gap.kind: gap.give for gap in judged(single, tmp_path).coverage.not_looked_for}
    assert gives["constant_over_life"] == "several rows per entity"
    few = judged(honest(12), tmp_path)
    gives = {gap.kind: gap.give for gap in few.coverage.not_looked_for}
    assert gives["too_good"] == "more labelled rows of both classes"
    assert few.coverage.looked_for == ("instant_after_prediction", "repeated_prediction")
    assert "Of 14 kinds of leakage 2 were looked for" in few.reason


def test_a_kind_that_was_found_in_one_way_is_asked_for_in_the_others(tmp_path: Path) -> None:
    """A target encoding is an aggregate that shows without a log; a sum over the whole future does not."""
    frame = honest(2_000).assign(customer=lambda rows: "c" + (rows.index % 100).astype(str))
    encoded = frame.assign(encoded=frame.groupby("customer")["churned"].transform("mean"))
    audited = judged(encoded, tmp_path)
    assert kinds(audited) == {"encoded": "future_in_aggregate"}
    assert audited.suspicions[0].evidence.endswith(
        "it equals the label's mean by customer over all rows, its own included, and in 0 over the others."
    )
    assert "future_in_aggregate" not in audited.coverage.looked_for
    [gap] = [gap for gap in audited.coverage.not_looked_for if gap.kind == "future_in_aggregate"]
    assert (gap.why, gap.give) == ("No log of the entities was given.", "--history with --as-of-column")
    assert "--history with --as-of-column for future in aggregate" in audited.reason
    assert gap in audited.document().not_looked_for

    log = encoded[["customer", "at", "score"]]
    summed = encoded.assign(total=encoded.groupby("customer")["score"].transform("sum"))
    logged = judged(summed, tmp_path, history=saved(log, tmp_path, "log.parquet"), history_as_of="at")
    assert kinds(logged) == {"encoded": "future_in_aggregate", "total": "future_in_aggregate"}
    assert "future_in_aggregate" in logged.coverage.looked_for


def test_what_changes_after_the_outcome_is_asked_a_log_for_beside_the_tables_own_rows(tmp_path: Path) -> None:
    frame = honest(6_000)
    frame["ended"] = frame["at"] + pd.to_timedelta(np.random.default_rng(4).uniform(1, 60, len(frame)), unit="D")
    gives = {gap.kind: gap.give for gap in judged(frame, tmp_path, label_time="ended").coverage.not_looked_for}
    assert gives["changes_only_after_outcome"] == "--history with --as-of-column"
    log = saved(frame[["customer", "at", "plan"]], tmp_path, "log.parquet")
    logged = judged(frame, tmp_path, label_time="ended", history=log, history_as_of="at")
    assert {gap.kind for gap in logged.coverage.not_looked_for} == set(WRITE_TIMES)


def test_one_kind_was_looked_for() -> None:
    gaps = [Untested("*", kind, "There are too few rows.", "rows") for kind in list(KINDS)[1:]]
    sentence = covered(
        tuple(KINDS), list(KINDS)[:1], gaps, ["entity", "label_time", "history", "available_at"]
    ).sentence
    assert sentence.startswith("Of 14 kinds of leakage 1 was looked for; give more labelled rows of both classes for ")


# -- the time to the outcome ------------------------------------------------------------------


UNITS = {"seconds": 1, "hours": 3_600, "days": 86_400, "weeks": 7 * 86_400}


def waited(seed: int = 5) -> tuple[pd.DataFrame, pd.Series]:
    """Orders whose outcome comes after 1 to 60 days, and the seconds to it, which tell nothing of the label."""
    frame = honest(2_000)
    wait = pd.Series(np.random.default_rng(seed).uniform(1, 60, len(frame)) * 86_400)
    frame["ended"] = frame["at"] + pd.to_timedelta(wait, unit="s")
    return frame, (frame["ended"] - frame["at"]).dt.total_seconds()


@pytest.mark.parametrize("turn", [lambda wait: wait, np.floor, np.ceil, np.round])
@pytest.mark.parametrize("unit", UNITS)
def test_a_column_that_is_the_time_to_the_outcome_is_named_though_it_tells_no_label(
    tmp_path: Path, unit: str, turn: Callable[[Any], Any]
) -> None:
    frame, seconds = waited()
    if unit == "weeks":  # of sixty days there are too few
        frame["ended"] = frame["at"] + pd.to_timedelta(seconds * 5, unit="s")
        seconds = (frame["ended"] - frame["at"]).dt.total_seconds()
    audited = judged(frame.assign(took=turn(seconds / UNITS[unit])), tmp_path, label_time="ended")
    [suspicion] = audited.suspicions
    assert (suspicion.feature, suspicion.kind, suspicion.severity) == ("took", "part_of_outcome_time", "warning")
    assert (suspicion.effect, suspicion.interval) == (1.0, None)
    assert suspicion.evidence.startswith(f"In 2000 of 2000 rows it is, in {unit}, the whole time from the prediction")
    assert audited.verdict == "warn"
    assert "about time" not in audited.reason  # this kind is


def test_a_plan_that_is_near_the_time_to_the_outcome_is_no_suspicion(tmp_path: Path) -> None:
    frame, seconds = waited()
    days = np.floor(seconds / 86_400)
    late = np.random.default_rng(6).integers(0, 2, len(frame))
    assert judged(frame.assign(planned_days=days - late), tmp_path, label_time="ended").verdict == "pass"
    term = frame.assign(ended=frame["at"] + 30 * DAY, term_days=30.0 + (frame.index % 500 == 0))
    assert judged(term, tmp_path, label_time="ended").verdict == "pass", "every term is of thirty days"


def test_a_length_of_time_of_pandas_is_read_in_a_frame() -> None:
    frame, _ = waited()
    frame["took"] = frame["ended"] - frame["at"]
    audited = audit_frame(frame, label="churned", prediction_time="at", label_time="ended")
    assert [(one.feature, one.kind) for one in audited.suspicions] == [("took", "part_of_outcome_time")]
    assert "took: its lengths of time were read as seconds." in audited.notes


def test_an_outcome_that_is_dated_before_its_prediction_is_said(tmp_path: Path) -> None:
    frame, _ = waited()
    assert not any("dated before" in note for note in judged(frame, tmp_path, label_time="ended").notes)
    early = frame["ended"].where(frame.index % 4 != 0, frame["at"] - DAY)
    known = int((frame.index % 4 == 0).sum())
    found = judged(frame.assign(ended=early), tmp_path, label_time="ended")
    said = (
        f"ended: the outcome of {known:,} rows of {len(frame):,} is dated before the prediction time. There is nothing"
    )
    assert any(note.startswith(said) for note in found.notes), found.notes
    days = frame.assign(ended=early.dt.date, at=frame["at"].dt.date)
    assert any("prediction time, compared by day." in note for note in judged(days, tmp_path, label_time="ended").notes)


# -- words ------------------------------------------------------------------------------------


def test_an_audit_is_printed_as_the_command_prints_it_and_shown_in_a_line(tmp_path: Path) -> None:
    late = honest().assign(since=lambda rows: rows["at"] + 14 * DAY)
    audited = judged(late, tmp_path)
    assert repr(audited) == "<Audit of frame.parquet: fail, 1 suspicion, 600 rows>"
    lines = str(audited).splitlines()
    assert lines[0] == f"fail: {audited.reason}"
    assert lines[1].startswith(
        "critical: since, instant_after_prediction. 600 of 600 values (100.00%) lie after at, by up"
    )
    assert "by up to 14 days. If it is known ahead" in lines[1], "no hours that are none"
    assert lines[2] == "untested: point_in_time: Of no column it was said since when its values were known."
    assert lines[-1] == "600 rows, 4 features."
    assert "select" not in str(audited) and "case when" not in repr(audited.label)
    many = str(judged(honest().assign(**{f"empty{number}": None for number in range(20)}), tmp_path)).splitlines()
    assert sum(line.startswith("untested: ") for line in many) == 9
    assert many[-2].startswith("untested: … and ")


def test_how_the_label_was_read_is_a_note_and_a_column_like_an_id_is_called_that(tmp_path: Path) -> None:
    frame = honest().assign(amount=lambda rows: rows["noise"], order=[f"o{row}" for row in range(600)])
    audited = judged(frame, tmp_path, label="amount")
    assert any(
        note.startswith("amount: it is an amount; it was judged by whether it lies above") for note in audited.notes
    )
    assert not any("amount" in str(gap) for gap in audited.untested)
    [gap] = [gap for gap in audited.untested if gap.feature == "order"]
    assert gap.why == "It is like an id: no value of it stands in 5 rows, so that no rate by value can be told."


@pytest.mark.parametrize(("entity", "others"), [(None, "rows"), ("customer", "entities")])
def test_a_rate_is_learnt_on_other_entities_only_where_there_are_some(
    tmp_path: Path, entity: str | None, others: str
) -> None:
    frame = honest().assign(copy=lambda rows: rows["churned"] + 0.1 * np.tanh(rows["noise"]))
    [suspicion] = [one for one in judged(frame, tmp_path, entity=entity).suspicions if one.kind == "too_good"]
    assert f"learnt on other {others} and other times" in suspicion.evidence


# -- labels -----------------------------------------------------------------------------------


def relabelled(change: Callable[[pd.Series], Any]) -> pd.DataFrame:
    frame = honest()
    return frame.assign(churned=change(frame["churned"]), twin=frame["churned"] * 2.0)


@pytest.mark.parametrize(
    ("change", "positive"),
    [
        (lambda label: label, "1"),
        (lambda label: label.astype(int), "1"),
        (lambda label: label * 2.0 - 1, "1"),
        (lambda label: label.map({True: "Yes", False: "Nope"}), "Yes"),
        (lambda label: label.map({True: "stay", False: "no"}), "stay"),
        (lambda label: label.map({True: "left", False: "stayed"}), "left"),
        (lambda label: label.map({True: "1", False: "0"}), "1"),
    ],
)
@pytest.mark.parametrize("name", ["frame.parquet", "frame.csv"])
def test_a_label_of_two_values_of_any_kind(
    tmp_path: Path, change: Callable[[pd.Series], Any], positive: str, name: str
) -> None:
    found = judged(relabelled(change), tmp_path, name)
    assert (found.label.kind, found.label.positive) == ("binary", positive)
    assert list(kinds(found)) == ["twin"]


def test_a_label_that_is_a_number(tmp_path: Path) -> None:
    frame = honest().assign(churned=np.random.default_rng(2).normal(100, 10, 600))
    frame.loc[:4, "churned"] = [np.nan, np.inf, -np.inf, np.nan, np.inf]
    found = judged(frame, tmp_path)
    assert found.label.kind == "number"
    assert any("3 labels are NaN or infinite" in note for note in found.notes)
    assert any("5 of 600 rows have no label" in note for note in found.notes)
    assert found.verdict == "pass"


def test_a_label_with_one_class_is_untestable_and_not_a_pass(tmp_path: Path) -> None:
    for value in (True, 0, "yes"):
        found = judged(honest().assign(churned=value), tmp_path)
        assert found.verdict == "untestable"
        assert "one class" in found.reason
    late = honest().assign(churned=True, since=lambda rows: rows["at"] + DAY)
    assert judged(late, tmp_path).verdict == "fail"  # what can be tested still is


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(None, "is empty"), (["a", "b", "c"] * 200, "more than two kinds"), (pd.Timestamp("2024-01-01"), "a label has")],
)
def test_what_cannot_be_a_label(tmp_path: Path, value: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        judged(honest().assign(churned=value), tmp_path)


# -- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%d %H:%M:%S+00", "%Y/%m/%d %H:%M:%S", "%d/%m/%Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S", "%b %d, %Y %H:%M:%S", "%d %B %Y %H:%M:%S",
        "%d/%m/%y %H:%M:%S",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["frame.parquet", "frame.csv"])
def test_times_as_text(tmp_path: Path, form: str, name: str) -> None:
    """Read as what they are: a value one second late is caught, and none that is not."""
    frame = honest()
    frame["at"] = frame["at"].dt.floor("s")
    frame["since"] = frame["at"] + pd.to_timedelta((np.arange(600) == 17).astype(int), unit="s")
    text = frame.assign(at=frame["at"].dt.strftime(form), since=frame["since"].dt.strftime(form))
    found = judged(text, tmp_path, name)
    [late] = found.suspicions
    assert late.evidence.startswith("1 of 600 values (0.17%) lie after at, by up to 0:00:01")
    assert not any("cannot be read" in note for note in found.notes)


def test_times_as_text_in_three_formats_in_one_column(tmp_path: Path) -> None:
    frame = honest()
    forms = ["%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%b %d, %Y %H:%M:%S"]
    frame["at"] = [moment.strftime(forms[row % 3]) for row, moment in enumerate(frame["at"])]
    frame.loc[[3, 6, 9], "at"] = ["soon", "32/13/2024", "never"]
    found = judged(frame, tmp_path)
    assert found.verdict == "pass"
    assert "at: 3 of 600 values cannot be read as a time; they are missing." in found.notes
    assert any("3 of 600 rows have no prediction time" in one.why for one in found.untested)


def test_the_order_of_day_and_month_is_decided_by_the_whole_column(tmp_path: Path) -> None:
    frame = honest()
    early = frame["at"].dt.day <= 12
    for form, rows, said in [
        ("%m/%d/%Y", frame, "read as month/day/year"),
        ("%d/%m/%Y", frame, "read as day/month/year"),
        ("%d/%m/%Y", frame[early], "its order of day and month cannot be told; read as day/month/year"),
    ]:
        text = rows.assign(at=rows["at"].dt.strftime(form), since=rows["since"].dt.date)
        assert any(said in note for note in judged(text, tmp_path).notes), said


def test_zones_are_mixed(tmp_path: Path) -> None:
    """10:00+02:00 is 08:00Z, and 10:00 without a zone counts as UTC."""
    frame = honest()
    frame["at"] = frame["at"].dt.floor("s")
    berlin = frame["at"].dt.tz_convert("Europe/Berlin").dt.strftime("%Y-%m-%dT%H:%M:%S%z")
    naive = frame["at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    text = frame.assign(at=naive, since=berlin.where(np.arange(600) % 2 == 0, naive))
    found = judged(text, tmp_path)
    assert found.verdict == "pass"
    assert any("300 values bear a time zone and 300 do not" in note for note in found.notes)
    local = frame.assign(since=frame["at"].dt.tz_convert("Asia/Tokyo"), at=frame["at"].dt.tz_localize(None))
    assert judged(local, tmp_path).verdict == "pass"


@pytest.mark.parametrize(("unit", "said"), [(1, "s since 1970"), (1_000, "ms since 1970"), (1_000_000, "µs since")])
def test_times_as_numbers(tmp_path: Path, unit: int, said: str) -> None:
    frame = honest()
    seconds = (frame["at"] - datetime(1970, 1, 1, tzinfo=UTC)) // pd.Timedelta(seconds=1)
    found = judged(frame.assign(at=seconds * unit), tmp_path)
    assert found.verdict == "pass"
    assert any(said in note for note in found.notes)
    days = frame["at"].dt.strftime("%Y%m%d").astype(int)
    assert any("YYYYMMDD" in note for note in judged(frame.assign(at=days), tmp_path).notes)


MIDNIGHT = pd.Timestamp("2024-03-09", tz="UTC")
WRITTEN = {"days": 19_791, "s": 1_709_942_400, "ms": 1_709_942_400_000, "µs": 1_709_942_400_000_000,
           "ns": 1_709_942_400_000_000_000, "YYYYMMDD": 20_240_309}  # fmt: skip
"""The same instant in every writing: days, seconds, … since 1970, and as the digits of its date."""


@pytest.mark.parametrize("kind", ["int64", "float64", "text", "decimal(38, 0)"])
@pytest.mark.parametrize("unit", WRITTEN)
def test_an_instant_that_is_a_number_is_read_the_same_by_file_and_by_sample(
    tmp_path: Path, unit: str, kind: str
) -> None:
    """Nine rows of ten hold 0 or -1, which stand for no time: they neither decide the unit nor are times."""
    numbers = pd.Series([0, -1, 0, 0, 0, 0, -1, 0, 0, WRITTEN[unit]])
    column = numbers.astype("str" if kind == "text" else "int64" if "(" in kind else kind)
    path = tmp_path / "times.parquet"
    with closing(engine.connect(tmp_path, threads=1)) as connection:
        connection.register("rows", pd.DataFrame({"moment": column, "place": range(10)}))
        cast = f"::{kind}" if "(" in kind else ""
        connection.execute(f"copy (select moment{cast} as moment, place from rows) to '{path}' (format parquet)")
        roles = {"moment": "--label-time"}
        table = tabular.table(connection, path, tmp_path, times=roles, columns=roles)
        instants = connection.execute(f"select moment::timestamptz from {table.relation} order by place").fetchall()
    assert instants == [(None,)] * 9 + [(MIDNIGHT.to_pydatetime(),)]
    assert "moment: 9 of 10 values are no such time; they are missing." in table.notes
    seconds = reading.as_instants(reading.read("moment", column))
    assert seconds is not None
    assert [pd.Timestamp(second, unit="s", tz="UTC") for second in seconds[9:]] == [MIDNIGHT]
    assert np.isnan(seconds[:9]).all()


@pytest.mark.parametrize("unit", ["days", "s"])
@pytest.mark.parametrize("option", ["prediction_time", "label_time", "available_at", "history_as_of"])
def test_every_column_that_is_given_as_a_time_may_be_a_bigint_of_days_or_seconds(
    tmp_path: Path, option: str, unit: str
) -> None:
    """The future that stands in `score` is found whichever column tells the time by a number."""
    frame = honest().assign(at=lambda rows: rows["at"].dt.floor("D"))
    frame["ended"] = frame["known"] = frame["at"] + 30 * DAY
    frame["since"] = frame["at"] - 2 * DAY
    frame = frame.drop_duplicates(["customer", "at"])
    log = frame[["customer", "at", "plan"]]
    column = {"prediction_time": "at", "label_time": "ended", "available_at": "known", "history_as_of": "at"}[option]
    written = (log if option == "history_as_of" else frame)[column].astype("int64") // 10**6
    if unit == "days":
        written = written // 86_400
    if option == "history_as_of":
        log = log.assign(at=written)
    else:
        frame[column] = written.where(frame["churned"], 0) if option == "label_time" else written
    assert log["at"].dtype == ("int64" if option == "history_as_of" else "datetime64[us, UTC]")
    audited = judged(
        frame,
        tmp_path,
        label_time="ended",
        available_at={"score": "known"},
        history=saved(log, tmp_path, "log.parquet"),
        history_as_of="at",
    )
    assert kinds(audited) == {"score": "point_in_time"}
    [late] = audited.suspicions
    assert late.effect == 1.0
    assert "up to 30 days" in late.evidence
    assert any(note.endswith(f"{column}: read as {unit} since 1970.") for note in audited.notes)


def test_numbers_that_are_years_or_lengths_of_time_are_no_instants(tmp_path: Path) -> None:
    for number in (2_024, 30, 30 * 86_400):
        with pytest.raises(
            BadInput, match=r"--label-time: column 'ended' of frame\.parquet is BIGINT, which is no time"
        ):
            judged(honest().assign(ended=number), tmp_path, label_time="ended")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("tomorrow", "holds nothing that can be read as a time, like 'tomorrow'"),
        (7, "is BIGINT, which is no time"),
        (True, "is BOOLEAN, which is no time"),
        (None, "is empty"),
    ],
)
def test_a_prediction_time_that_is_none(tmp_path: Path, value: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        judged(honest().assign(at=value), tmp_path)


# -- files ------------------------------------------------------------------------------------


def test_twelve_rows_are_too_few_and_that_is_the_verdict(tmp_path: Path) -> None:
    found = judged(honest(12), tmp_path)
    assert found.verdict == "untestable"
    assert "too few" in found.reason
    assert found.untested


def test_columns_without_a_value_are_untested_and_all_of_them_untestable(tmp_path: Path) -> None:
    found = judged(honest().assign(noise=np.nan, plan=None), tmp_path)
    assert found.verdict == "pass"
    assert {"noise", "plan"} <= {one.feature for one in found.untested}
    assert judged(honest().assign(noise=np.nan, plan=None, score=None, since=pd.NaT), tmp_path).verdict == "untestable"


def test_five_thousand_columns(tmp_path: Path) -> None:
    frame = honest(300)
    wide = pd.DataFrame(np.random.default_rng(3).normal(0, 1, (300, 5_000)), columns=[f"x{n}" for n in range(5_000)])
    found = judged(pd.concat([frame, wide.assign(x77=frame["churned"] * 1.0)], axis=1), tmp_path)
    assert list(kinds(found)) == ["x77"]


ODD = [
    'say "x"',
    "a b",
    "größe 名",
    "select",
    "group",
    "row",
    "row_",
    "file_row_number",
    "n",
    "h",
    "late",
    "frame",
    "ROW",
]


@pytest.mark.parametrize("name", ["frame.parquet", "frame.csv"])
def test_names_of_columns_are_only_names(tmp_path: Path, name: str) -> None:
    """Quotes, spaces, unicode, words of SQL and names that the auditor itself uses; in every part a column can play."""
    renamed = dict(
        zip(["customer", "at", "churned", "score", "since"], ["order", "from", "where", *ODD[:2]], strict=True)
    )
    frame = honest().rename(columns=renamed).assign(**dict.fromkeys(ODD[2:-1], 1.0))
    frame["known at"] = frame["from"] + HOUR
    found = judged(
        frame,
        tmp_path,
        name,
        label="where",
        prediction_time="from",
        entity="order",
        available_at={'say "x"': "known at"},
    )
    assert kinds(found) == {'say "x"': "point_in_time"}
    assert found.suspicions[0].examples[0]["known at"] > found.suspicions[0].examples[0]["from"]


@pytest.mark.parametrize(
    ("options", "name", "said"),
    [
        ({"sep": ";"}, "frame.csv", None),
        ({"sep": "\t"}, "frame.csv", None),
        ({"sep": "|", "quoting": 1}, "frame.csv", None),
        ({"sep": ";", "encoding": "latin-1"}, "frame.csv", "read as Latin-1"),
        ({"encoding": "cp1252"}, "frame.csv", "read as Windows-1252"),
        ({"encoding": "utf-16"}, "frame.csv", None),
        ({"encoding": "utf-8-sig"}, "frame.csv", None),
        ({}, "frame.csv.gz", None),
    ],
)
def test_csv_of_every_kind(tmp_path: Path, options: dict[str, Any], name: str, said: str | None) -> None:
    frame = honest().rename(columns={"churned": "gekündigt"})
    frame["plan"] = frame["plan"].str.replace(
        "plus", 'größer; besser, "so"' + (" für 5 €" if options.get("encoding") == "cp1252" else "")
    )
    found = judged(saved(frame, tmp_path, name, **options), tmp_path, label="gekündigt")
    assert found.verdict == "pass"
    assert found.features == ("score", "noise", "plan", "since")
    assert said is None or any(said in note for note in found.notes)


def test_a_number_that_turns_into_text_far_down_the_file(tmp_path: Path) -> None:
    frame = honest(30_000)
    frame["noise"] = ["unknown" if row == 29_990 else "7" for row in range(30_000)]
    assert judged(frame, tmp_path, "frame.csv").verdict == "pass"


def test_a_file_is_what_its_content_says(tmp_path: Path) -> None:
    wrong = saved(honest(), tmp_path).rename(tmp_path / "really.csv")
    assert any("is Parquet, whatever its ending says" in note for note in judged(wrong, tmp_path).notes)
    wrong = saved(honest(), tmp_path, "frame.csv").rename(tmp_path / "really.parquet")
    assert any("is text, whatever its ending says" in note for note in judged(wrong, tmp_path).notes)


def bad_files(folder: Path) -> dict[str, Path]:
    whole = saved(honest(), folder, "whole.parquet").read_bytes()
    contents = {
        "empty": b"",
        "torn": whole[: len(whole) // 2],
        "zip": b"PK\x03\x04" + b"\0" * 99,
        "pickle": b"\x80\x04\x95" + b"\0" * 99,
        "binary": b"\x01\x02\0\0" * 99,
        "json": b'{"a": 1}',
        "header": b"customer,at,churned,score\n",
        "prose": b"Once upon a time\nthere was a file\nof no columns\n",
        "ragged": b"customer,at,churned,score\n" + b"a,2024-01-01,1,2\n" * 40 + b"a,b,c,d,e,f,g\n" + b"a,b,1,2\n" * 40,
        "gzip": gzip.compress(b""),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents} | {"folder": folder, "nothing": folder / "nothing.csv"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "is empty: 0 bytes"), ("torn", "cannot be read as such"), ("zip", "zip archive or an Excel"),
        ("pickle", "a pickle"), ("binary", "neither Parquet nor text"), ("json", "looks like JSON"),
        ("header", "has no rows"), ("prose", "has no column 'churned'; it has Once upon a time"),
        ("ragged", "line 42 has 7 fields, its header 4"), ("gzip", "has no rows"),
        ("folder", "is a folder"), ("nothing", "There is no file"),
    ],
)  # fmt: skip
def test_what_is_no_table(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        judged(bad_files(tmp_path)[name], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({"label": "churn"}, "--label: frame.parquet has no column 'churn'; did you mean 'churned'"),
        ({"prediction_time": "AT"}, "did you mean 'at'"),
        ({"entity": "zzz"}, "it has customer, at, churned"),
        ({"label_time": "sins"}, "--label-time: .* did you mean 'since'"),
        ({"available_at": {"scor": "at"}}, "--available-at: .* did you mean 'score'"),
        ({"planned": ["sinc"]}, "--planned: .* did you mean 'since'"),
        ({"label": "at"}, "--label and --prediction-time both name the column 'at'|--prediction-time and --label"),
        ({"ignore": ["score", "noise", "plan", "since"]}, "no column left to judge"),
    ],
)
def test_wrong_columns_are_answered_with_the_nearest(tmp_path: Path, roles: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        judged(honest(), tmp_path, **roles)


def test_columns_that_nothing_can_judge_are_said(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    duckdb.sql(
        f"copy (select range % 50 as customer, timestamp '2024-01-01' + to_hours(range::int) as at, "
        f"range % 3 = 0 as churned, range::decimal(9, 2) as price, [1, 2] as items, {{'a': 1}} as box, "
        f"interval 1 day as span, uuid() as id, 'x'::enum ('x', 'y') as shape, 1::hugeint as big "
        f"from range(500)) to '{path}' (format parquet)"
    )
    found = judged(path, tmp_path)
    assert {"items", "box", "span"} <= {one.feature for one in found.untested}


# -- the page and the command -----------------------------------------------------------------


def test_the_page_needs_nothing_else_and_escapes_what_the_file_says(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    frame = honest().rename(columns={"since": evil, "customer": "<b>"})
    frame[evil] = frame["at"] + DAY
    frame["plan"] = np.where(frame["churned"], "<img src=x onerror=y>", frame["plan"])
    found = judged(frame, tmp_path, entity="<b>")
    assert {finding.feature for finding in found.suspicions} == {evil, "plan"}
    text = page.write(found, tmp_path / "page.html").read_text()
    for raw in ("<script", "<img", "<b>at", "http://", "https://", "url(", "@import"):
        assert raw not in text
    assert text.count("<svg") >= 4
    assert "nan" not in text.lower().replace("finance", "")
    assert len(list(tmp_path.glob(".*part"))) == 0


def test_the_command_answers_in_exit_code_json_and_a_page(tmp_path: Path) -> None:
    roles = ("--label", "churned", "--prediction-time", "at", "--entity", "customer")
    good, late = saved(honest(), tmp_path), honest().assign(since=lambda rows: rows["at"] + DAY)
    bad, few = saved(late, tmp_path, "late.csv"), saved(honest(12), tmp_path, "few.parquet")
    for path, verdict, code in ((good, "pass", 0), (bad, "fail", 1), (few, "untestable", 1)):
        target = tmp_path / f"{verdict}.html"
        done = tiltyard("leakage", "audit", str(path), *roles, "--report", str(target), "--json", cwd=str(tmp_path))
        assert done.returncode == code, done.stderr
        answer = json.loads(done.stdout)
        assert list(answer)[:4] == ["verdict", "rows", "findings", "untested"]
        assert (answer["verdict"], answer["report"]) == (verdict, str(target))
        looked_for, missing = answer["looked_for"], answer["not_looked_for"]
        assert len(looked_for) + len(missing) == 14
        assert all(list(gap) == ["kind", "why", "give"] for gap in missing)
        counted = f"Of 14 kinds of leakage {len(looked_for)} were looked for; give "
        assert counted in answer["reason"]
        text = target.read_text()
        assert verdict in text
        assert counted in text
        assert f"<dd>{len(looked_for)} of 14</dd>" in text
        for finding in answer["findings"]:
            assert list(finding) == ["feature", "severity", "kind", "effect", "interval", "evidence", "examples"]


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_a_warning_is_an_exit_code_only_where_it_is_asked_for(
    tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    """A copy of the label is no evidence about time, so that a person has to say whether it was known."""
    copied = saved(honest().assign(copy=lambda rows: rows["churned"] * 1.0), tmp_path)
    roles = ("--label", "churned", "--prediction-time", "at", "--json")
    done = tiltyard("leakage", "audit", str(copied), *roles, *options, cwd=str(tmp_path))
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (code, "warn")
    clean = saved(honest(), tmp_path, "clean.parquet")
    assert tiltyard("leakage", "audit", str(clean), *roles, *options, cwd=str(tmp_path)).returncode == 0


# -- what broke once --------------------------------------------------------------------------


def test_a_number_that_stands_for_no_time_is_missing_and_leaves_the_others_their_unit(tmp_path: Path) -> None:
    frame = honest()
    seconds = frame["at"].astype("int64") / 1e6
    for odd in (np.inf, -1.0, 2.0**62):
        found = judged(frame.assign(at=seconds.where(frame.index >= 5, odd)), tmp_path)
        assert found.verdict == "pass", odd
        assert "at: 5 of 600 values are no such time; they are missing." in found.notes


@pytest.mark.parametrize("never", ["9999-12-31", "infinity", "290000-01-01"])
def test_an_instant_that_stands_for_not_yet_is_no_future(tmp_path: Path, never: str) -> None:
    path = tmp_path / "frame.parquet"
    with duckdb.connect() as connection:
        connection.register("frame", honest())
        ended = f"case when noise > 0 then '{never}'::timestamp else '2023-01-01'::timestamp end"
        connection.execute(f"copy (select * replace ({ended} as since) from frame) to '{path}' (format parquet)")
    assert judged(path, tmp_path).verdict == "pass"


def test_a_prediction_time_that_never_comes_is_missing(tmp_path: Path) -> None:
    times = honest()["at"].map(pd.Timestamp.isoformat)
    for name in ("frame.csv", "frame.parquet"):
        found = judged(honest().assign(at=times.where(times.index >= 5, "infinity")), tmp_path, name)
        assert found.verdict == "pass"
        assert any("5 of 600 rows have no prediction time" in one.why for one in found.untested)


@pytest.mark.parametrize("copy", [lambda amount: 2 * amount, lambda amount: -amount, np.log])
def test_an_amount_in_another_unit_is_named(tmp_path: Path, copy: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(3)
    amount = rng.gamma(2, 50, 600)
    frame = honest().assign(churned=amount, noise=np.log(amount) + rng.normal(0, 0.5, 600))
    assert kinds(judged(frame, tmp_path)) == {}, "an honest one that goes along with it"
    assert kinds(judged(frame.assign(other=copy(amount)), tmp_path)) == {"other": "too_good"}


def test_what_is_no_file_to_read_twice(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "gone.csv")
    for path, sentence in ((pipe, "is a pipe"), (link, "is a link to"), (tmp_path / ("x" * 300), "name too long")):
        with pytest.raises(BadInput, match=sentence):
            judged(path, tmp_path)


@pytest.mark.parametrize(("value", "kind"), [("[score]", "double"), ("{'a': plan}", "struct"), ("plan::blob", "blob")])
def test_an_entity_is_something_that_can_be_counted(tmp_path: Path, value: str, kind: str) -> None:
    path = tmp_path / "frame.parquet"
    with duckdb.connect() as connection:
        connection.register("frame", honest())
        connection.execute(f"copy (select * replace ({value} as customer) from frame) to '{path}' (format parquet)")
    with pytest.raises(BadInput, match=f"--entity: column 'customer' is {kind}"):
        judged(path, tmp_path)


def test_what_is_said_of_no_feature_is_refused(tmp_path: Path) -> None:
    for word in ("=since", "score="):
        with pytest.raises(BadInput, match="FEATURE=COL"):
            parse_available_at([word])
    with pytest.raises(BadInput, match="is the column of --label"):
        judged(honest(), tmp_path, available_at={"churned": "since"})


def test_a_page_takes_the_place_of_no_table_and_of_no_device(tmp_path: Path) -> None:
    table, pipe = saved(honest(), tmp_path), tmp_path / "pipe.html"
    before = table.read_bytes()
    os.mkfifo(pipe)
    link = tmp_path / "link.html"
    link.symlink_to(table)
    for target in (table, link, pipe, tmp_path, tmp_path / ("x" * 300), tmp_path / "none" / "page.html"):
        with pytest.raises(BadInput, match="--report"):
            page.check(target, [table, tmp_path / "no-history.csv"])
    assert table.read_bytes() == before
    page.check(tmp_path / "page.html", [table])


@pytest.mark.parametrize("name", ["frame.parquet", "frame.csv"])
def test_two_columns_of_one_name_are_told_apart_and_it_is_said(tmp_path: Path, name: str) -> None:
    found = judged(honest().assign(Score=1.0, noise_1=2.0), tmp_path, name)
    assert [note for note in found.notes if "Two columns" in note] == [
        "Two columns are called score; the second one is called Score_1 here."
    ]


def test_a_decimal_comma_makes_numbers(tmp_path: Path) -> None:
    frame = honest().assign(other=lambda rows: rows["churned"] * 10 + np.sin(rows["noise"]))
    found = judged(saved(frame, tmp_path, "frame.csv", sep=";", decimal=","), tmp_path)
    assert ("other", "too_good") in {(one.feature, one.kind) for one in found.suspicions}
    assert "frame.csv: its numbers are written with a decimal comma." in found.notes
    assert judged(saved(frame, tmp_path, "other.csv", sep=";"), tmp_path).notes == ()


def test_a_year_of_two_digits_is_read_by_the_predictions_and_never_critical(tmp_path: Path) -> None:
    """Born in 85 is 1985; what lies after its prediction is told, as a warning, for the century is a guess."""
    rng = np.random.default_rng(3)
    at = pd.Timestamp("2016-03-01 10:00") + pd.to_timedelta(rng.integers(0, 365, 600), unit="D")
    born = pd.Timestamp("1930-01-01") + pd.to_timedelta(rng.integers(0, 365 * 70, 600), unit="D")
    frame = pd.DataFrame(
        {
            "at": at.strftime("%Y-%m-%d %H:%M"),
            "born": born.strftime("%d/%m/%y"),
            "closed": (at + pd.Timedelta(days=40)).strftime("%d/%m/%y"),
            "closed_then": (at + pd.Timedelta(days=40)).strftime("%d/%m/%Y"),
            "is_late": rng.integers(0, 2, 600),
        }
    )
    found = audit.audit(saved(frame, tmp_path, "frame.csv"), label="is_late", prediction_time="at")
    assert [(one.feature, one.kind, one.severity) for one in found.suspicions] == [
        ("closed_then", "instant_after_prediction", "critical"),
        ("closed", "instant_after_prediction", "warning"),
    ]
    assert found.suspicions[1].evidence.endswith("how the times of closed are meant is a guess.")
    said = "born: 600 years have two digits; they are read as 1923 to 2022, by the predictions, which end in 2017."
    assert said in found.notes


def test_an_order_of_day_and_month_that_nothing_tells_is_never_critical(tmp_path: Path) -> None:
    days = pd.date_range("2016-01-01", "2016-12-12").to_series()
    days = days[(days.dt.day <= 12) & (days.dt.month <= 10)]
    closed = (days + pd.DateOffset(months=2)).dt.strftime("%m/%d/%Y")
    frame = pd.DataFrame({"at": days.dt.strftime("%Y-%m-%d"), "closed": closed, "is_late": np.arange(len(days)) % 2})
    found = audit.audit(saved(frame, tmp_path, "frame.csv"), label="is_late", prediction_time="at")
    assert {one.severity for one in found.suspicions} == {"warning"}
    assert any("cannot be told" in note for note in found.notes)


def test_what_a_number_would_change_stays_text(tmp_path: Path) -> None:
    """Two entities whose numbers are one as a DOUBLE are two, and so are 7 and 007."""
    path = tmp_path / "env=prod" / "row=3" / "frame.csv"
    path.parent.mkdir(parents=True)
    path.write_text("id,code,part,hex,at,y\n12345678901234567890,7,1.50,0x1F,2020-01-01,0\n"
                    "12345678901234567891,007,1e3,1_000,2020-01-02,1\n")  # fmt: skip
    with closing(engine.connect(tmp_path, threads=1)) as connection:
        table = tabular.table(connection, path, tmp_path, times={"at": "--prediction-time"}, columns={})
        assert table.columns == {
            "id": "VARCHAR", "code": "VARCHAR", "part": "DOUBLE", "hex": "VARCHAR", "at": "DATE", "y": "BIGINT"
        }  # fmt: skip
        rows = connection.execute(f"select id, code, part, hex from {table.relation}").fetchall()
    assert rows == [("12345678901234567890", "7", 1.5, "0x1F"), ("12345678901234567891", "007", 1000.0, "1_000")]


def test_a_text_below_the_head_makes_a_column_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "frame.csv"
    rows = [f"{number},{number}.5,{number % 2}" for number in range(30_000)]
    path.write_text("\n".join(["a,b,y", *rows, "0012,1.5,0", "13,2_0,1"]) + "\n")
    with closing(engine.connect(tmp_path, threads=1)) as connection:
        table = tabular.table(connection, path, tmp_path, times={}, columns={})
        assert table.columns == {"a": "VARCHAR", "b": "VARCHAR", "y": "BIGINT"}
        last = connection.execute(f"select a, b from {table.relation} order by row desc limit 2").fetchall()
    assert last == [("13", "2_0"), ("0012", "1.5")]
