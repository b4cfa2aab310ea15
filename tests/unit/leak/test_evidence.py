"""Evidence from the data itself: what is found, what is not, what cannot be said."""

import numpy as np
import pandas as pd
import pytest

from tiltyard.errors import BadInput
from tiltyard.leak import evidence
from tiltyard.leak.evidence import Sample
from tiltyard.leak.suspicion import Offsets, Rates


def plain(rows=2_000, seed=1):
    """Predictions over a year, one per entity; `score` is honest (AUC about .75), `noise` is nothing."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    risk = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "customer": [f"c{number}" for number in range(rows)],
            "asked_at": start + pd.to_timedelta(np.sort(rng.uniform(0, 365, rows)), unit="D"),
            "bad": rng.random(rows) < 1 / (1 + np.exp(1.0 - 1.3 * risk)),
            "score": risk,
            "noise": rng.normal(size=rows),
        }
    )


def weigh(frame, **more):
    return evidence.weigh(Sample(frame, "bad", "asked_at", "customer", **more))


def found(weighed):
    return {(finding.feature, finding.kind) for finding in weighed.suspicions}


def test_honest_columns_raise_nothing():
    assert weigh(plain()).suspicions == ()


def test_an_instant_after_the_prediction_is_critical_and_shows_the_rows():
    frame = plain()
    frame["closed_at"] = frame["asked_at"] + pd.Timedelta(hours=3)
    (finding,) = weigh(frame).suspicions
    assert (finding.feature, finding.severity, finding.kind) == ("closed_at", "critical", "instant_after_prediction")
    assert finding.effect == 1.0
    assert len(finding.examples) == 5
    assert finding.examples[0]["entity"] == "c0"
    assert weigh(frame, planned=frozenset({"closed_at"})).suspicions == ()


@pytest.mark.parametrize("written", ["%Y-%m-%dT%H:%M:%S%z", "%d/%m/%Y %H:%M", "%Y%m%d", "epoch", "three"])
def test_instants_are_seen_however_they_are_written(written):
    frame = plain(400)
    later = frame["asked_at"] + pd.Timedelta(days=3)
    if written == "epoch":
        frame["closed"] = later.astype("int64") // 10 ** (9 if later.dt.unit == "ns" else 6)
    elif written == "three":
        forms = ["%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M", "%d %b %Y"]
        frame["closed"] = [when.strftime(forms[number % 3]) for number, when in enumerate(later)]
    else:
        frame["closed"] = later.dt.strftime(written)
    assert found(weigh(frame)) == {("closed", "instant_after_prediction")}


def test_numbers_that_may_be_instants_are_no_more_than_a_warning():
    """Orders are numbered along with time, where seconds since 1970 lie; a code of eight digits may read as a date."""
    frame = plain(400)
    seconds = (frame["asked_at"] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    frame["order"] = seconds.iloc[0] + 9_000_000 + (seconds - seconds.iloc[0]) * 4 // 10
    frame["code"] = np.where(frame["noise"] > 0, 20_241_231, 20_240_229)
    frame["closed"] = seconds + 86_400 * (1 + np.random.default_rng(3).integers(0, 30, len(frame)))
    frame["day"] = (frame["asked_at"] + pd.Timedelta(days=3)).dt.strftime("%Y%m%d").astype(int)
    raised = {each.feature: each for each in weigh(frame).suspicions if each.kind == "instant_after_prediction"}
    assert {name: each.severity for name, each in raised.items()} == {
        "order": "warning", "code": "warning", "closed": "critical", "day": "critical",
    }  # fmt: skip
    assert (
        "that its numbers are instants is a guess, as epoch s; they run 0.4 times as fast" in raised["order"].evidence
    )
    assert "that its numbers are dates is a guess, of 2 different ones" in raised["code"].evidence


def test_a_column_that_is_the_label_with_noise_is_too_good():
    frame = plain()
    frame["copy"] = frame["bad"] + np.random.default_rng(2).normal(0, 0.2, len(frame))
    assert ("copy", "too_good") in found(weigh(frame))


def test_a_value_that_excludes_the_label_is_named():
    frame = plain(4_000)
    frame["spaces"] = np.where(~frame["bad"] & (np.random.default_rng(3).random(len(frame)) < 0.2), 1, 0)
    assert found(weigh(frame)) == {("spaces", "default_tracks_label")}


def test_what_cannot_be_judged_is_said():
    frame = plain(12).assign(empty=None, same=1)
    weighed = weigh(frame)
    assert weighed.suspicions == ()
    why = {(untested.feature, untested.kind): untested.why for untested in weighed.untested}
    assert "too few" in why["*", "too_good"]
    assert why["empty", "*"] == "It has no value in any row."
    assert why["same", "*"] == "It has the same value in every row."


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(BadInput, match="no column 'bed'"):
        evidence.weigh(Sample(plain(), "bed", "asked_at"))


def test_a_blank_that_only_the_outcome_explains_is_named():
    """New customers have no log-in either: that one is expected, the blank of whoever left is not."""
    rng = np.random.default_rng(4)
    frame = plain(6_000)
    frame["tenure"] = rng.integers(0, 100, len(frame))
    left = frame["bad"].to_numpy() & (rng.random(len(frame)) < 0.3)
    frame["age"] = np.where((frame["tenure"] < 10) | left, np.nan, rng.integers(0, 30, len(frame)))
    (finding,) = weigh(frame).suspicions
    assert (finding.feature, finding.kind) == ("age", "default_tracks_label")
    frame["age"] = np.where(frame["tenure"] < 10, np.nan, rng.integers(0, 30, len(frame)))
    assert weigh(frame).suspicions == ()


def test_a_version_that_was_changed_afterwards_is_named():
    rng = np.random.default_rng(5)
    frame = plain(4_000)
    frame["asked"] = rng.choice(list("ABCDE"), len(frame), p=[0.5, 0.2, 0.1, 0.1, 0.1])
    moved = ~frame["bad"] & (rng.random(len(frame)) < 0.3)
    frame["given"] = np.where(moved, rng.choice(list("ABCDE"), len(frame)), frame["asked"])
    (finding,) = weigh(frame).suspicions
    assert finding.kind == "revised_copy"
    assert finding.feature in ("asked", "given")
    assert finding.effect < 0.2


def journeys(rows=8_000, seed=6):
    """Flights: asked two hours before; late when the delay and the surprise of the flight add up to 15 minutes."""
    rng = np.random.default_rng(seed)
    day = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 90, rows)), unit="D")
    due = day + pd.to_timedelta(rng.integers(5 * 60, 20 * 60, rows), unit="min")
    distance = rng.choice(np.arange(200, 2_600, 60), rows)
    delay = np.round(rng.exponential(12, rows) - 5)
    flight = np.round(distance / 8 + rng.normal(0, 8, rows))
    left = due + pd.to_timedelta(delay, unit="min")
    frame = pd.DataFrame(
        {
            "flight": [f"f{number}" for number in range(rows)],
            "asked_at": due - pd.Timedelta(hours=2),
            "late": delay + flight - distance / 8 > 15,
            "landed_at": left + pd.to_timedelta(flight + rng.normal(10, 2, rows), unit="min"),
            "distance": distance,
            "planned_minutes": np.round(distance / 8),
            "planned_clock": due.hour * 100 + due.minute,
        }
    )
    lies = {"delay": delay, "minutes": flight, "clock": left.hour * 100 + left.minute, "minute": left.minute}
    return frame, lies


def test_parts_of_the_wait_and_clocks_of_the_outcome_are_critical():
    frame, lies = journeys()
    roles = {"label": "late", "prediction_time": "asked_at", "entity": "flight", "label_time": "landed_at"}
    assert evidence.weigh(Sample(frame, **roles)).suspicions == ()
    parts = evidence.weigh(Sample(frame.assign(delay=lies["delay"], minutes=lies["minutes"]), **roles))
    assert {(one.feature, one.kind) for one in parts.suspicions if one.severity == "critical"} == {
        ("delay", "part_of_outcome_time"),
        ("minutes", "part_of_outcome_time"),
    }
    clocks = evidence.weigh(Sample(frame.assign(clock=lies["clock"], minute=lies["minute"]), **roles))
    assert {(one.feature, one.kind) for one in clocks.suspicions} == {
        ("clock", "clock_of_outcome"),
        ("minute", "clock_of_outcome"),
    }


def test_what_is_planned_is_never_accused_and_hides_no_true_leak():
    """A booking is settled when the guest comes, so that what is planned until then grows with the wait. Said to be
    planned it is held against nobody, and the delay beside it is a leak all the same."""
    rng = np.random.default_rng(11)
    frame = plain(6_000)
    ahead = rng.gamma(2, 5, len(frame))
    late = rng.gamma(2, 1, len(frame))
    frame["bad"] = late + rng.normal(0, 0.5, len(frame)) > 2
    frame["ended"] = frame["asked_at"] + pd.to_timedelta(ahead + late, unit="D")
    frame["visits"], frame["delay_days"] = (ahead // 7).astype(int), late
    accused = {(one.feature, one.kind) for one in weigh(frame, label_time="ended").suspicions}
    assert ("visits", "grows_until_outcome") in accused
    frame["lead_days"] = ahead
    weighed = weigh(frame, label_time="ended", planned=frozenset({"lead_days", "visits"}))
    assert {one.feature for one in weighed.suspicions} == {"delay_days"}
    assert {gap.feature for gap in weighed.untested if gap.why == evidence.PLANNED} == {"lead_days", "visits"}


def test_what_is_counted_until_the_outcome_is_critical_and_what_was_there_before_is_not():
    rng = np.random.default_rng(7)
    frame = plain(8_000)
    wait = rng.exponential(10, len(frame))
    frame["known_at"] = frame["asked_at"] + pd.to_timedelta(np.where(frame["bad"], wait, 60.0), unit="D")
    frame["before"] = rng.poisson(0.7, len(frame))
    found_before = weigh(frame, label_time="known_at").suspicions
    assert found_before == ()
    frame["changes"] = rng.poisson(0.05 * np.where(frame["bad"], wait, 15.0))
    (finding,) = weigh(frame, label_time="known_at").suspicions
    assert (finding.feature, finding.severity, finding.kind) == ("changes", "critical", "grows_until_outcome")
    assert finding.interval is not None and finding.interval[1] < 0.5


def orders(customers=300, seed=8):
    """A log of orders, and monthly reviews of who orders again within thirty days."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    counts = rng.integers(2, 12, customers)
    who = np.repeat(np.arange(customers), counts)
    log = pd.DataFrame({"customer": who, "at": start + pd.to_timedelta(rng.uniform(0, 360, len(who)), unit="D")})
    log["pounds"] = np.round(rng.exponential(40, len(log)), 2)
    rows = []
    for month in range(2, 11):
        at = start + pd.Timedelta(days=30 * month)
        past = log[log["at"] <= at].groupby("customer")["pounds"]
        soon = log[(log["at"] > at) & (log["at"] <= at + pd.Timedelta(days=30))]
        review = pd.DataFrame({"spent": past.sum(), "orders": past.size()}).reset_index()
        rows.append(review.assign(asked_at=at, again=review["customer"].isin(soon["customer"])))
    return pd.concat(rows, ignore_index=True), log


def test_a_column_that_is_nearly_always_nought_is_no_aggregate_that_ends_at_nought():
    frame, log = orders()
    log["is_open"] = (log.groupby("customer")["at"].rank(ascending=False) > 1).astype(int)
    rng = np.random.default_rng(3)
    frame["delay"] = np.where(rng.random(len(frame)) < 0.03, rng.integers(1, 90, len(frame)), 0)
    roles = {"label": "again", "prediction_time": "asked_at", "entity": "customer"}
    assert evidence.weigh(Sample(frame, **roles, history=log, history_as_of="at")).suspicions == ()


def test_whether_there_is_a_row_is_no_aggregate_that_a_count_of_one_has_seen():
    """Of customers whose first payment failed and whose later ones did not, "the number of different is_failed where
    is_failed is 0" is 1 in the end and 0 by then; and so is, for a while, an honest count of payments 1."""
    rng = np.random.default_rng(5)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    rows, log = [], []
    for number in range(400):
        name, times = f"c{number}", np.sort(rng.uniform(0, 360, 3))
        failed = [number % 3 == 0, False, False]
        log += [(name, start + pd.Timedelta(days=float(at)), int(bad)) for at, bad in zip(times, failed, strict=True)]
        asked = start + pd.Timedelta(days=float(rng.uniform(times[0], times[1])))
        rows.append((name, asked, bool(rng.random() < 0.3), 1, rng.integers(1, 900)))
    frame = pd.DataFrame(rows, columns=["customer", "asked_at", "bad", "payment_count", "noise"])
    more = pd.DataFrame(
        {"customer": [f"d{number}" for number in range(300)], "asked_at": start + pd.Timedelta(days=200), "bad": False}
    ).assign(payment_count=rng.integers(2, 9, 300), noise=1)
    history = pd.DataFrame(log, columns=["customer", "at", "is_failed"])
    assert weigh(pd.concat([frame, more]), history=history, history_as_of="at").suspicions == ()


def test_the_future_inside_an_aggregate_is_found_in_the_log_and_without_it():
    frame, log = orders()
    whole = log.groupby("customer")["pounds"].sum()
    roles = {"label": "again", "prediction_time": "asked_at", "entity": "customer"}
    logged = {"history": log, "history_as_of": "at"}
    assert evidence.weigh(Sample(frame, **roles, **logged)).suspicions == ()
    lying = frame.assign(total=frame["customer"].map(whole))
    findings = evidence.weigh(Sample(lying, **roles, **logged)).suspicions
    assert ("total", "future_in_aggregate") in {(one.feature, one.kind) for one in findings}
    in_seconds = log.assign(at=(log["at"] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1))
    counted = evidence.weigh(Sample(lying, **roles, history=in_seconds, history_as_of="at")).suspicions
    assert [(one.feature, one.kind) for one in counted] == [(one.feature, one.kind) for one in findings]
    (first, *_) = [one for one in findings if one.kind == "future_in_aggregate"]
    assert first.severity == "critical"
    assert "the sum of pounds" in first.evidence
    example = first.examples[0]
    assert example["value"] == pytest.approx(example["over all rows"])
    assert example["up to the prediction"] < example["over all rows"]
    ended = frame.groupby("customer")["spent"].transform("last")
    without = evidence.weigh(Sample(frame.assign(total=ended), **roles)).suspicions
    assert {(one.feature, one.kind) for one in without} == {("total", "constant_over_life")}


def test_a_number_that_hardly_moves_is_no_time_since_a_row_that_always_comes_a_day_later():
    """Of every stop the outcome is logged a day after it: whatever lies within a unit of one value would come to the
    same time from there, and tells nothing of it. What counts the days since the last row of all does."""
    rng = np.random.default_rng(7)
    frame = plain(1_500).assign(lat=rng.uniform(44.89, 45.05, 1_500), rate=rng.uniform(0, 0.3, 1_500))
    lag = pd.to_timedelta(86_400 + rng.integers(-5, 5, 1_500) / 10, unit="s")
    history = pd.DataFrame({"customer": frame["customer"], "at": frame["asked_at"] + lag, "bad": frame["bad"]})
    first = history.assign(at=frame["asked_at"] - pd.Timedelta(hours=1), bad=None)
    log = pd.concat([first, history], ignore_index=True)
    assert weigh(frame, history=log, history_as_of="at").suspicions == ()
    lags = pd.to_timedelta(rng.integers(1, 40, 1_500), unit="D")
    log["at"] = pd.concat([first["at"], frame["asked_at"] + lags], ignore_index=True)
    lying = frame.assign(days_since=-lags.days)
    assert ("days_since", "future_in_aggregate") in found(weigh(lying, history=log, history_as_of="at"))


def in_nanoseconds(times):
    return (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(1, "us") * 1_000


@pytest.mark.parametrize(
    ("asked", "logged"),
    [
        (lambda times: times.dt.floor("s"), lambda times: times.dt.floor("s")),
        (lambda times: times.dt.floor("ms"), lambda times: times.dt.floor("ms")),
        (lambda times: times.dt.floor("us"), lambda times: times.dt.floor("us")),
        (lambda times: times.dt.floor("us"), in_nanoseconds),
        (in_nanoseconds, lambda times: times.dt.floor("us")),
        (lambda times: times.dt.floor("ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%f%z"), lambda times: times.dt.floor("ms")),
        (lambda times: times.dt.floor("s"), lambda times: times.dt.floor("us")),
        (lambda times: times.dt.floor("ms"), lambda times: times.dt.floor("us")),
    ],
)
def test_a_rows_own_first_writing_is_known_at_its_own_time_to_whatever_part_of_a_second(asked, logged):
    """Parcels that are written when they come and again with their outcome: what the first writing said is no future,
    and what only the second one says is."""
    frame = plain(600, seed=11)
    rng = np.random.default_rng(4)
    times = frame["asked_at"].dt.round("us")
    frame["asked_at"] = times
    frame["grams"] = rng.integers(100, 9_000, len(frame))
    first = pd.DataFrame({"customer": frame["customer"], "at": times, "grams": frame["grams"], "state": "sent"})
    second = first.assign(at=times + pd.Timedelta(days=2), state=np.where(frame["bad"], "lost", "there"))
    first["cents"], second["cents"] = rng.integers(1, 900, (2, len(frame)))
    log = pd.concat([first, second], ignore_index=True)
    frame["asked_at"], log["at"] = asked(times), logged(log["at"])
    log["at"] = log["at"].astype("int64") if logged is in_nanoseconds else log["at"]
    assert weigh(frame, history=log, history_as_of="at").suspicions == ()
    lying = frame.assign(cents=second["cents"])
    assert ("cents", "future_in_aggregate") in found(weigh(lying, history=log, history_as_of="at"))


def test_an_instant_in_other_units_is_no_later_than_itself():
    frame = plain()
    frame["asked_at"] = frame["asked_at"].dt.floor("us")
    frame["sent"] = in_nanoseconds(frame["asked_at"]).astype("int64") + 999  # of which the other column was cut
    assert "instant_after_prediction" not in {kind for _, kind in found(weigh(frame))}
    frame["sent"] += 2_000_000
    assert ("sent", "instant_after_prediction") in found(weigh(frame))


def moved(seed, late, customers=200):
    """Monthly rows of subscribers and the log of their tier; some leave after months. The tier changes once: `late`,
    a minute after the leaving and only then; else at any time. Each row shows the tier as it was then."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    rows, log = [], []
    for number in range(customers):
        name, leaves, before, after = f"c{number}", rng.random() < 0.4, *rng.integers(1, 100, 2).tolist()
        outcome = start + pd.Timedelta(days=float(rng.uniform(120, 300))) if leaves else pd.NaT
        change = outcome + pd.Timedelta(minutes=1) if late else start + pd.Timedelta(days=float(rng.uniform(40, 330)))
        log.append((name, start, before))
        if not pd.isna(change):
            log.append((name, change, after))
        for month in range(1, 12):
            at = start + pd.Timedelta(days=30 * month)
            tier = after if not pd.isna(change) and at >= change else before
            rows.append((name, at, leaves, outcome, tier, rng.normal()))
    frame = pd.DataFrame(rows, columns=["customer", "asked_at", "bad", "left_at", "tier", "noise"])
    frame["left_at"] = pd.to_datetime(frame["left_at"], utc=True)
    return frame, pd.DataFrame(log, columns=["customer", "at", "tier"])


def overwritten(weighed):
    return [finding for finding in weighed.suspicions if finding.kind == "changes_only_after_outcome"]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_changes_only_after_the_outcome_is_found_in_the_frames_own_rows(seed):
    frame = moved(seed, late=True)[0].sample(frac=1, random_state=seed)
    (finding,) = overwritten(weigh(frame, label_time="left_at"))
    assert (finding.feature, finding.severity, finding.effect) == ("tier", "critical", 1.0)
    low, high = finding.interval
    assert 0.9 < low < high == 1.0
    for example in finding.examples:
        assert example["prediction_time"] >= example["outcome_time"]
    honest, _ = moved(seed, late=False)
    assert overwritten(weigh(honest, label_time="left_at")) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_value_from_after_the_outcome_is_found_by_its_log(seed):
    for late in (True, False):
        frame, log = moved(seed, late)
        early = frame.groupby("customer").nth(2)  # one row each, before any outcome
        roles = {"label_time": "left_at", "history": log, "history_as_of": "at"}
        assert overwritten(weigh(early, **roles)) == [], "as it was then"
        in_the_end = early["customer"].map(log.groupby("customer")["tier"].last())
        named = overwritten(weigh(early.assign(tier=in_the_end), **roles))
        assert [finding.feature for finding in named] == (["tier"] if late else []), "as it is now"


def test_a_label_encoded_by_its_own_rows_is_found():
    frame = plain(3_000)
    frame["town"] = np.random.default_rng(9).choice(list("abcdefghijklmnop"), len(frame))
    frame["town_rate"] = frame.groupby("town")["bad"].transform("mean")
    assert ("town_rate", "future_in_aggregate") in found(weigh(frame))


def awkward():
    """Columns that stand in the way."""
    frame = plain(400)
    things = [1, "a", None, pd.Timestamp("2024-01-01"), 3.5, True, b"x", [1], {"a": 1}, (1, 2), np.nan]
    return {
        "mixed": frame.assign(x=pd.Series([things[row % len(things)] for row in range(400)], dtype=object)),
        "infinite": frame.assign(x=np.where(frame["bad"], np.inf, 1.0), y=-np.inf),
        "complex": frame.assign(x=frame["score"] + 1j),
        "one prediction": frame.assign(asked_at=frame["asked_at"].iloc[0]),
        "no predictions": frame.assign(asked_at=pd.NaT),
        "one entity": frame.assign(customer="c"),
        "no labels": frame.assign(bad=None),
        "one class": frame.assign(bad=True),
        "amounts": frame.assign(bad=frame["score"] + frame["noise"]),
        "nobody": frame.head(0),
        "backwards": frame.iloc[::-1],
        "never": frame.assign(x=np.where(frame["noise"] > 0, "9999-12-31", "2023-01-01")),
        "typed": frame.assign(x=pd.Categorical(frame["bad"]), y=pd.array(frame["noise"] > 0, dtype="boolean")),
    }


@pytest.mark.parametrize("case", awkward())
@pytest.mark.filterwarnings("error")
def test_awkward_columns_break_nothing(case):
    weighed = weigh(awkward()[case])
    assert all(untested.why.endswith(".") for untested in weighed.untested)
    assert weighed.untested
    assert all(finding.severity == "warning" for finding in weighed.suspicions)


def test_text_labels_of_many_values_and_columns_that_are_no_times_are_refused():
    frame = plain(300).assign(three=np.array(["a", "b", "c"])[np.arange(300) % 3])
    with pytest.raises(BadInput, match="3 different texts"):
        evidence.weigh(Sample(frame, "three", "asked_at"))
    with pytest.raises(BadInput, match="does not hold instants"):
        evidence.weigh(Sample(frame, "bad", "score"))


def honest(seed, rows=3_000):
    """A frame of honest columns of many kinds, some of them strong: rare labels, seasons, drift, copies, ids."""
    rng = np.random.default_rng(seed)
    entity = np.arange(rows) if seed % 2 else rng.integers(0, rows // 8, rows)
    day = np.sort(rng.uniform(0, 365, rows))
    asked_at = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(day, unit="D")
    strong, own = rng.normal(size=rows), rng.normal(size=entity.max() + 1)[entity]
    logit = 2.6 * strong + 0.7 * own + 0.8 * np.sin(day / 58) + rng.choice([-1.5, 0, 1.5]) * day / 365
    base = rng.choice([0.02, 0.1, 0.5])
    label = rng.random(rows) < 1 / (1 + np.exp(-(logit - np.quantile(logit, 1 - base))))
    wait = np.where(label, np.minimum(rng.exponential(20, rows), 30), 30.0)
    columns = {
        "entity": entity, "asked_at": asked_at, "label": label,
        "known_at": asked_at + pd.to_timedelta(wait, unit="D"),
        "strong": strong, "copy": 2 * strong + rng.normal(0, 0.1, rows), "rounded": np.round(strong),
        "flag": strong > 1.5, "gaps": np.where(rng.random(rows) < 0.4 / (1 + np.exp(-strong)), np.nan, strong),
        "began": np.where(day < 60, np.nan, rng.normal(size=rows)), "month": asked_at.month, "hour": asked_at.hour,
        "clock": asked_at.hour * 100 + asked_at.minute, "id": [f"i{number}" for number in rng.permutation(rows)],
        "serial": np.arange(rows) + 10**9, "plan": rng.choice(list("abcd"), rows, p=[0.7, 0.2, 0.07, 0.03]),
        "town": [f"t{number}" for number in rng.zipf(1.5, rows) % 200], "counts": rng.poisson(np.exp(own / 2 - 1)),
        "since": asked_at - pd.to_timedelta(rng.exponential(200, rows), unit="D"),
        "last_hour": (asked_at - pd.to_timedelta(0.2 * rng.exponential(np.exp(-strong / 2)), unit="D")).hour,
        "steady": np.round(rng.normal(size=entity.max() + 1), 3)[entity], "same": 1,
    }  # fmt: skip
    for number in range(30):
        noisy = rng.normal(0, 0.5) * strong + rng.normal(size=rows)
        gaps = np.where(rng.random(rows) < 0.1, np.nan, noisy)
        columns[f"x{number}"] = (noisy, np.round(noisy), gaps, np.where(noisy > 1.2, noisy, 0))[number % 4]
    return pd.DataFrame(columns)


def test_honest_columns_raise_no_false_alarm():
    """1,000 honest columns in 20 frames: at most one warning, nothing critical."""
    findings = [
        finding
        for seed in range(20)
        for finding in evidence.weigh(Sample(honest(seed), "label", "asked_at", "entity", "known_at")).suspicions
    ]
    assert [finding for finding in findings if finding.severity == "critical"] == []
    assert len(findings) <= 1, findings


def test_plots_stay_small():
    frame, lies = journeys(3_000)
    roles = {"label": "late", "prediction_time": "asked_at", "entity": "flight", "label_time": "landed_at"}
    for finding in evidence.weigh(Sample(frame.assign(**lies), **roles)).suspicions:
        numbers = [value for value in vars(finding.plot).values() if isinstance(value, tuple)]
        assert sum(map(len, numbers)) <= 80
        assert isinstance(finding.plot, Rates | Offsets)
        assert len(finding.examples) <= 5
