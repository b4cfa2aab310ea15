"""Has the world changed, and is it felt: evidence, effect and harm of one version, night after night."""

import numpy as np
import pandas as pd
import pytest

from tiltyard.govern import change
from tiltyard.spec import DriftPolicy
from tiltyard.train import profile

FIRST = 738_886
TRAINING, ROWS, LAG = 56, 120, 5
POLICY = DriftPolicy()
PROMISE = change.TrainedPromise(loss_high=0.2, safe_default=0.3, min_matured=200)
THRESHOLD = 365.0


class World:
    """Nights of a model with four features. `moves` says what becomes of a night's rows, by its age in production;
    `before` what becomes of those of training."""

    def __init__(self, days=40, *, moves=None, chance=None, before=None, seed=1):
        random = np.random.default_rng(seed)
        count = TRAINING + days
        self.nights = FIRST + np.arange(count)
        frames, scores, labels = [], [], []
        for number in range(count):
            rows = pd.DataFrame(
                {
                    "amount": random.gamma(9, 5, ROWS) + 20 + random.normal(0, 0.5),
                    "load": random.normal(0, 1, ROWS) + random.normal(0, 0.05),
                    "plan": random.choice(list("abc"), ROWS),
                    "is_new": random.random(ROWS) < 0.3,
                }
            )
            age = number - TRAINING
            if moves and age >= 0:
                rows = moves(rows, age)
            if before and age < 0:
                rows = before(rows)
            score = 1 / (1 + np.exp(1 - rows["load"].fillna(0).to_numpy(dtype=float)))
            truth = chance(score, age) if chance and age >= 0 else score
            frames.append(rows)
            scores.append(score)
            labels.append((random.random(ROWS) < truth).astype(float))
        rows, score, label = pd.concat(frames, ignore_index=True), np.concatenate(scores), np.concatenate(labels)
        index = np.repeat(self.nights, ROWS)
        cut = TRAINING * ROWS
        kinds = {"amount": "numeric", "load": "numeric", "plan": "categorical", "is_new": "boolean"}
        importance = {"amount": 0.3, "load": 0.5, "plan": 0.1, "is_new": 0.1}
        views = dict.fromkeys(kinds, "ftr_x")
        kept = profile.describe(rows[:cut], kinds, views, index[:cut], score[:cut], label[:cut], importance)
        self.reference = profile.read({"profile": kept})
        nightly = [
            profile.night(self.reference, rows[cut + n * ROWS : cut + (n + 1) * ROWS], score[cut + n * ROWS :][:ROWS])
            for n in range(days)
        ]
        counts = {name: np.array([night[name] for night in nightly]) for name in nightly[0]}
        self.production = profile.Nights(self.nights[TRAINING:], counts)
        self.index, self.score, self.label = index[cut:], score[cut:], label[cut:]
        self.outcomes = profile.truth(self.reference, self.index, self.score, self.label)

    def day(self, age):
        return int(self.nights[TRAINING + age])

    def truth(self, age):
        matured = self.day(age) - LAG
        done, now = (int(np.searchsorted(self.index, night, side="right")) for night in (matured, self.day(age)))
        waiting = self.score[done:now]
        return change.KnownTruth(
            matured, self.outcomes.until(matured), self.index[:done], self.score[:done], self.label[:done], waiting
        )

    def compare(self, age, standing=None, **more):
        more = {"policy": POLICY, "promise": PROMISE, "threshold": THRESHOLD, "version": 1} | more
        return change.compare(
            self.reference, self.production, self.truth(age), night=self.day(age), standing=standing, **more
        )

    def live(self, ages, standing=None, **more):
        by_age = {}
        for age in ages:
            by_age[age] = self.compare(age, standing, **more)
            standing = by_age[age].standing
        return by_age


def signal(comparison, column, kind=None):
    return next(entry for entry in comparison.signals if entry.column == column and kind in (None, entry.kind))


def loaded(by, since=10, until=10**6):
    return lambda rows, age: rows.assign(load=rows["load"] + by * (since <= age < until))


@pytest.fixture(scope="module")
def still():
    return World()


@pytest.fixture(scope="module")
def moved():
    return World(moves=loaded(1.0))


def test_where_nothing_happens_nothing_is_said(still):
    for comparison in still.live(range(30)).values():
        assert not comparison.alarm and not comparison.broken and not comparison.moved
        assert comparison.harm in ("not_felt", "unknown")


def test_what_lasts_is_an_alarm_with_evidence_and_effect(moved):
    by_age = moved.live(range(30))
    raised = [age for age, comparison in by_age.items() if comparison.raised]
    assert len(raised) == 1 and 11 <= raised[0] <= 18
    first = by_age[raised[0]]
    assert first.evidence >= first.threshold == THRESHOLD
    assert signal(first, "load").drifted and signal(first, "load").evidence >= THRESHOLD
    assert signal(first, "load").value >= signal(first, "load").threshold >= POLICY.min_effect
    assert not signal(first, "plan").drifted and not signal(first, "amount").drifted
    assert all(by_age[age].alarm for age in range(raised[0], 30))  # it stands


def test_an_effect_needs_k_of_n_windows(moved):
    by_age = moved.live(range(20))
    load = [signal(by_age[age], "load") for age in range(20)]
    over = [entry.value is not None and entry.value >= entry.threshold for entry in load]
    needed = POLICY.hysteresis
    assert [entry.drifted for entry in load] == [
        sum(over[max(0, age - needed.of + 1) : age + 1]) >= needed.least for age in range(20)
    ]
    began = [age for age in range(10, 20) if "load" in by_age[age].moved]
    assert began and began == [over.index(True, 10) + needed.least - 1]  # said once, on the night it is confirmed


def test_a_spike_of_one_night_raises_nothing_and_is_over():
    world = World(moves=loaded(1.5, 10, 11))
    assert not any(comparison.raised for comparison in world.live(range(35)).values())


def test_an_alarm_is_over_when_the_effect_is():
    world = World(moves=loaded(1.0, 5, 20))
    by_age = world.live(range(35))
    standing = [age for age, comparison in by_age.items() if comparison.alarm]
    assert standing and standing == list(range(standing[0], standing[-1] + 1)) and 20 <= standing[-1] < 32
    after = by_age[standing[-1] + 1].standing
    assert after.since is None and after.start == world.day(standing[-1] + 1) + 1  # and evidence starts from nought


def test_a_retrain_answers_an_alarm(moved):
    by_age = moved.live(range(20))
    before = by_age[19].standing
    assert before.since is not None
    answer = moved.day(19)
    night = moved.compare(20, before, answered=answer)
    assert not night.alarm and night.standing == change.Standing(1, answer + 1)
    assert night.evidence < THRESHOLD
    stands = moved.compare(20, before, answered=before.since - 1)  # a retrain from before the alarm answers nothing
    assert stands.alarm and stands.standing.since == before.since


def test_a_new_version_starts_from_nought(moved):
    before = moved.live(range(20))[19].standing
    night = moved.compare(20, before, version=2)
    assert not night.alarm and night.standing == change.Standing(2, moved.day(20))


def test_evidently_has_the_last_word(moved):
    asked = []

    def nobody(columns, limits):
        asked.append((columns, limits))
        return frozenset()

    by_age = moved.live(range(25), agrees=nobody)
    assert asked and all("load" in columns and limits["load"] >= POLICY.min_effect for columns, limits in asked)
    assert not any(comparison.alarm for comparison in by_age.values())
    assert "load" in by_age[24].disagreed


def test_a_night_that_cannot_be_trusted_raises_and_ends_nothing(moved):
    assert not any(comparison.alarm for comparison in moved.live(range(25), trusted=False).values())
    before = moved.live(range(20))[19].standing
    quiet = World(moves=loaded(1.0, 5, 6))
    assert quiet.compare(30, before, trusted=False).standing.since == before.since
    assert quiet.compare(30, before).standing.since is None


def test_nights_of_an_open_incident_are_no_evidence():
    world = World(moves=loaded(1.0, 10, 17))
    left_out = frozenset(world.day(age) for age in range(10, 17))
    assert max(comparison.evidence for comparison in world.live(range(25)).values()) >= THRESHOLD
    by_age = world.live(range(25), left_out=left_out)
    assert not any(comparison.alarm for comparison in by_age.values())
    assert max(comparison.evidence for comparison in by_age.values()) < THRESHOLD


# -- broken -----------------------------------------------------------------------------------


def half(rows):
    return rows["load"].where(np.arange(len(rows)) % 2 == 0)


BREAKS = {
    "missing": (lambda rows: rows.assign(load=half(rows)), "load", "50% of load is missing, 0% at training"),
    "constant": (lambda rows: rows.assign(load=0.0), "load", "load has one value only"),
    "unit": (lambda rows: rows.assign(amount=rows["amount"] * 100), "amount", "another unit?"),
    "smaller unit": (lambda rows: rows.assign(amount=rows["amount"] / 1000), "amount", "another unit?"),
    "other words": (lambda rows: rows.assign(plan=rows["plan"].str.upper()), "plan", "another unit?"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_named_and_is_no_drift(name):
    how, column, said = BREAKS[name]
    world = World(30, moves=lambda rows, age: how(rows) if age >= 12 else rows)
    by_age = world.live(range(30))
    assert not any(comparison.broken for age, comparison in by_age.items() if age < 12)
    for age in range(12, 30):
        (broken,) = by_age[age].broken
        assert (broken.node, broken.column) == ("ftr_x", column) and said in broken.reason
        assert not by_age[age].alarm
    gaps = [entry for entry in by_age[15].signals if entry.kind == "missing"]
    assert [entry.column for entry in gaps] == (["load"] if name == "missing" else [])
    assert all(entry.drifted and entry.value >= change.MISSING_RISE for entry in gaps)


def empty(rows):
    return rows.assign(amount=np.nan)


@pytest.mark.parametrize(
    "fills", [lambda rows: rows.assign(amount=0.0), lambda rows: rows, empty], ids=["one value", "many", "none"]
)
def test_a_column_that_training_saw_no_value_of_is_not_broken_by_having_some(fills):
    """A past rate has none until the first outcomes have matured, and later on it has."""
    world = World(30, before=empty, moves=lambda rows, age: fills(rows) if age >= 5 else empty(rows))
    by_age = world.live(range(30))
    assert not any(comparison.broken for comparison in by_age.values())
    assert not any(comparison.alarm for comparison in by_age.values())
    assert not signal(by_age[29], "amount", "feature").drifted


def test_a_slow_trend_is_no_unit_change():
    world = World(30, moves=lambda rows, age: rows.assign(amount=rows["amount"] * (1 + 0.05 * age)))
    assert not any(comparison.broken for comparison in world.live(range(30)).values())


# -- harm -------------------------------------------------------------------------------------


def test_a_label_that_turns_round_is_felt():
    world = World(moves=None, chance=lambda score, age: 1 - score if age >= 8 else score)
    by_age = world.live(range(35))
    comparison = by_age[34]
    assert comparison.alarm and comparison.harm == "felt" and "Brier" in comparison.harm_reason
    assert signal(comparison, "label").drifted and signal(comparison, "loss").drifted
    assert not any(signal(comparison, name).drifted for name in ("amount", "load", "plan", "is_new", "prediction"))
    assert not any(entry.raised for age, entry in by_age.items() if age < 8 + LAG)  # its truth was not in


def test_a_feature_that_nothing_hangs_on_is_not_felt():
    world = World(moves=lambda rows, age: rows.assign(amount=rows["amount"] + 15 * (age >= 10)))
    by_age = world.live(range(32))
    assert by_age[31].alarm and signal(by_age[31], "amount").drifted
    assert by_age[31].harm == "not_felt"


def test_without_enough_truth_harm_is_unknown(still):
    comparison = still.compare(3)
    assert comparison.harm == "unknown" and "of 200 matured predictions" in comparison.harm_reason
    assert signal(comparison, "brier").value is None and signal(comparison, "safe_default").value is None


def test_worse_than_the_safe_default_is_felt(still):
    truth = still.truth(30)
    poor = change.KnownTruth(truth.matured, truth.profile, truth.nights, 1 - truth.score, truth.label)
    brier, default = change.decay(poor, PROMISE, THRESHOLD, 7)
    assert brier.drifted and default.drifted and default.value > 0
    brier, default = change.decay(truth, PROMISE, THRESHOLD, 7)
    assert not brier.drifted and not default.drifted
    kept, _ = change.decay(truth, change.TrainedPromise(None, 0.3, 200), THRESHOLD, 7)
    assert kept.value is None and kept.note == change.NOT_KEPT


def test_the_same_night_twice_is_the_same(moved):
    before = moved.live(range(20))[19].standing
    assert moved.compare(20, before) == moved.compare(20, before)


def test_later_nights_do_not_matter(moved):
    cut = profile.Nights(
        moved.production.nights[:16], {name: counts[:16] for name, counts in moved.production.counts.items()}
    )
    less = change.compare(moved.reference, cut, moved.truth(15), POLICY, PROMISE, THRESHOLD, 1, moved.day(15))
    assert less == moved.compare(15)


def test_a_column_that_is_gone_is_not_tested(still):
    counts = {name: value for name, value in still.production.counts.items() if name != "plan"}
    seen = profile.Nights(still.production.nights, counts)
    comparison = change.compare(still.reference, seen, still.truth(20), POLICY, PROMISE, THRESHOLD, 1, still.day(20))
    assert (signal(comparison, "plan").value, signal(comparison, "plan").note) == (
        None,
        "not in the feature views any more",
    )
