"""Evidence from the data itself: what is found, what is not, what cannot be said."""

import numpy as np
import pandas as pd
import pytest

from tiltyard import evidence
from tiltyard.errors import BadInput
from tiltyard.evidence import Sample


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
    return {(finding.feature, finding.kind) for finding in weighed.findings}


def test_honest_columns_raise_nothing():
    assert weigh(plain()).findings == ()


def test_an_instant_after_the_prediction_is_critical_and_shows_the_rows():
    frame = plain()
    frame["closed_at"] = frame["asked_at"] + pd.Timedelta(hours=3)
    (finding,) = weigh(frame).findings
    assert (finding.feature, finding.severity, finding.kind) == ("closed_at", "critical", "instant_after_prediction")
    assert finding.effect == 1.0
    assert len(finding.examples) == 5
    assert finding.examples[0]["entity"] == "c0"
    assert weigh(frame, planned=frozenset({"closed_at"})).findings == ()


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
    assert weighed.findings == ()
    why = {(untested.feature, untested.kind): untested.why for untested in weighed.untested}
    assert "too few" in why["*", "too_good"]
    assert why["empty", "*"] == "It has no value in any row."
    assert why["same", "*"] == "It has the same value in every row."


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(BadInput, match="no column 'bed'"):
        evidence.weigh(Sample(plain(), "bed", "asked_at"))
