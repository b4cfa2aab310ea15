"""The lying columns of each naive staging are named, the honest stagings raise next to nothing, and no name matters."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import know_project, make_settings
from tests.naive import staging
from tiltyard.leak import evidence, suite
from tiltyard.leak.evidence import Sample, Weighed
from tiltyard.suites import CheckReport

PARTS = {
    "hotels": (datetime(2017, 3, 31, tzinfo=UTC), timedelta(days=515)),
    "flights": (datetime(2014, 2, 1, tzinfo=UTC), timedelta(days=28)),
    "retail": (datetime(2011, 8, 1, tzinfo=UTC), timedelta(days=180)),
    "subscription": (datetime(2025, 4, 1, tzinfo=UTC), timedelta(days=60)),
}
"""Less than the data sets hold, so that it is built in seconds; but of hotels all cohorts: what grows until the outcome
is told by the few bookings that hold something and were cancelled at once."""
IN_TIME, STATISTICAL = (suite.RULES[rule].removeprefix("expect_") for rule in suite.EVIDENCE.values())
SAID = suite.RULES["used_before_written"].removeprefix("expect_")
DECLARED = ("hotels", "flights")
"""Sources whose contracts say which columns are written later: every lie is one of them."""
MISSED = {"hotels": {"country"}}
"""docs/explanation/leakage.md says why."""


Stagings = tuple[str, Sample, Sample, CheckReport, CheckReport]


@pytest.fixture(scope="module", params=PARTS)
def stagings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_url: str, data_mirror: Path
) -> Stagings:
    """The source, its honest sample and its naive one, and what the gate before training says of each."""
    source = request.param
    as_of, window = PARTS[source]
    samples: list[Sample] = []
    reports: list[CheckReport] = []
    homes = [
        make_settings(tmp_path_factory.mktemp(source), postgres_url, sources=(source,), data_mirror=data_mirror)
        for _ in range(2)
    ]
    for settings, naive in zip(homes, (False, True), strict=True):
        know_project(settings, postgres_url)
        if naive:  # what the first one fetched
            shutil.copytree(homes[0].landing, settings.landing)
        sample, report = staging.sample(settings, source, naive=naive, as_of=as_of, window=window)
        samples.append(sample)
        reports.append(report)
    return source, samples[0], samples[1], reports[0], reports[1]


@pytest.fixture(scope="module")
def weighed(stagings: Stagings) -> Weighed:
    return evidence.weigh(stagings[2])


def test_every_lie_is_named(stagings: Stagings, weighed: Weighed) -> None:
    source = stagings[0]
    known = staging.lies(source)
    named = {finding.feature for finding in weighed.suspicions}
    assert known["lies"] - named <= MISSED.get(source, set())
    assert named <= known["lies"] | known["doubtful"]


def test_the_honest_staging_raises_next_to_nothing(stagings: Stagings) -> None:
    findings = evidence.weigh(stagings[1]).suspicions
    assert [finding for finding in findings if finding.severity == "critical"] == []
    assert len(findings) <= 1, findings


def test_the_gate_before_training_names_them_too_and_lets_the_honest_frame_pass(stagings: Stagings) -> None:
    source, _, _, honest, naive = stagings
    known = staging.lies(source)
    assert honest.critical_failures == ()
    assert [one for one in honest.warnings if one.name == STATISTICAL] == []
    told = {one.name: set((one.column or "").split(", ")) for one in naive.results if not one.success}
    named = told.get(IN_TIME, set()) | told.get(STATISTICAL, set())
    assert known["lies"] - named <= MISSED.get(source, set())
    assert told.get(SAID, set()) == (known["lies"] if source in DECLARED else set())


def test_names_do_not_matter(stagings: Stagings, weighed: Weighed) -> None:
    """Columns renamed at random and shuffled, those of the log too: the same verdicts."""
    naive = stagings[2]
    rng = np.random.default_rng(1)
    roles = [naive.label, naive.prediction_time, naive.entity, naive.label_time, naive.history_as_of]
    columns = dict.fromkeys([*naive.frame.columns, *(naive.history.columns if naive.history is not None else ())])
    names = {column: f"v{number}" for column, number in zip(columns, rng.permutation(len(columns)), strict=True)}
    label, prediction_time, entity, label_time, as_of = (None if role is None else names[role] for role in roles)
    assert label is not None
    disguised = replace(
        naive,
        frame=naive.frame.rename(columns=names).sample(frac=1, axis=1, random_state=1),
        label=label,
        prediction_time=prediction_time,
        entity=entity,
        label_time=label_time,
        features=tuple(names[feature] for feature in naive.features),
        history=None if naive.history is None else naive.history.rename(columns=names),
        history_as_of=as_of,
    )
    found = {(one.feature, one.severity, one.kind) for one in evidence.weigh(disguised).suspicions}
    assert found == {(names[one.feature], one.severity, one.kind) for one in weighed.suspicions}
