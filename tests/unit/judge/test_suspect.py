"""Suspect labels: flips are found, in all rows, in a slice and in a delivery; honest noise is none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from tiltyard.judge import suspect
from tiltyard.judge.suspect import LabelRows

CLASSES = ("no", "yes")
LEVEL = 0.1 / 365.25
NEWEST = 1_000
ROWS = 1_250


def world(seed: int, rows: int = ROWS, blocks: int = suspect.BLOCKS) -> LabelRows:
    """Windows of an honest world that a version knows something of: a tenth is a yes."""
    rng = np.random.default_rng(seed)
    count = rows * (blocks + 1)
    seen, unseen = rng.normal(size=(2, count))
    block = np.repeat(np.arange(blocks + 1), rows)
    return LabelRows(
        block=block,
        score=1 / (1 + np.exp(2.5 - 1.1 * seen)),
        label=(rng.random(count) < 1 / (1 + np.exp(2.7 - 1.1 * seen - 0.8 * unseen))).astype(float),
        known=NEWEST + 6 - 7 * block - rng.integers(0, 7, count),
        newest=NEWEST,
        slices={"plan": rng.choice(np.array(["basic", "standard", "premium"], dtype=object), count)},
    )


def flipped(rows: LabelRows, places: np.ndarray, share: float, seed: int = 1) -> LabelRows:
    """With a share of the labels at `places` turned."""
    label = rows.label.copy()
    drawn = np.random.default_rng(seed).choice(places, round(share * len(places)), replace=False)
    label[drawn] = 1 - label[drawn]
    return replace(rows, label=label)


def found(rows: LabelRows, classes: tuple[str, ...] | None = CLASSES) -> list[str]:
    return [count.cell for count in suspect.counts(rows, classes, LEVEL) if count.is_suspect]


def newest(rows: LabelRows) -> np.ndarray:
    return np.flatnonzero(rows.block == 0)


def test_honest_labels_are_never_suspect() -> None:
    for seed in range(60):
        rows = world(seed)
        assert suspect.untested(rows) is None
        assert found(rows) == []


@pytest.mark.parametrize(("share", "least"), [(0.2, 30), (0.05, 24)])
def test_flips_anywhere_are_found(share: float, least: int) -> None:
    hits = sum(bool(found(flipped(world(seed), newest(world(seed)), share))) for seed in range(30))
    assert hits >= least


def test_flips_aimed_at_a_slice_name_the_slice() -> None:
    for seed in range(10):
        rows = world(seed)
        aimed = np.flatnonzero((rows.block == 0) & (rows.slices["plan"] == "basic"))
        assert "plan=basic" in found(flipped(rows, aimed, 0.2))


def test_a_yes_that_is_hushed_up_is_found_where_it_was_likely() -> None:
    rows = world(3)
    hushed = np.flatnonzero((rows.block == 0) & (rows.label == 1))
    told = [count for count in suspect.counts(flipped(rows, hushed, 0.5), CLASSES, LEVEL) if count.is_suspect]
    assert told
    assert {count.found < count.expected for count in told if count.says == "are labelled 'yes'"} == {True}


def test_one_of_several_classes_is_named() -> None:
    rng = np.random.default_rng(5)
    rows = world(5)
    score = rng.dirichlet((2.0, 1.0, 0.5), len(rows.label))
    label = (score.cumsum(axis=1) < rng.random(len(rows.label))[:, None]).sum(axis=1).astype(float)
    names = ("early", "on_time", "late")
    honest = replace(rows, score=score, label=label, slices={})
    assert found(honest, names) == []
    turned = label.copy()
    drawn = newest(rows)[rng.random(ROWS) < 0.1]
    turned[drawn] = 2
    told = suspect.counts(replace(honest, label=turned), names, LEVEL)
    assert told[0].is_suspect
    assert told[0].says == "are labelled 'late'"


def test_a_number_is_held_against_what_is_usual_of_its_residuals() -> None:
    rng = np.random.default_rng(6)
    rows = world(6)
    label = rows.score + rng.normal(0, 1, len(rows.score))
    honest = replace(rows, label=label)
    assert found(honest, None) == []
    moved = label.copy()
    moved[newest(rows)[rng.random(ROWS) < 0.05]] += 5
    told = suspect.counts(replace(honest, label=moved), None, LEVEL)
    assert (told[0].is_suspect, told[0].says) == (True, "have a label far above what was said")


def test_the_delivery_that_brought_them_is_named() -> None:
    """Also where they correct cohorts of before, which no window of the newest cohorts holds."""
    rows = world(7)
    unlikely = np.flatnonzero((rows.block == 3) & (rows.label == 0))[:60]
    label, known = rows.label.copy(), rows.known.copy()
    label[unlikely], known[unlikely] = 1, NEWEST + 2
    late = replace(rows, label=label, known=known)
    day = str(np.datetime64("0001-01-01") + np.timedelta64(NEWEST + 1, "D"))
    assert found(late) == [f"labels known on {day}"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, "no version has scored"),
        (world(1, rows=10), "10 rows with a label in the newest window, 20 are the least"),
        (world(1, blocks=3), "3 windows before it to compare with, 4 are the least"),
    ],
)
def test_what_cannot_be_tested_says_so(rows: LabelRows | None, says: str) -> None:
    assert says in str(suspect.untested(rows))


@pytest.mark.parametrize("hits", [10, 25, 60, 90, 140])
def test_the_chance_is_that_of_a_binomial_where_nothing_else_is_unknown(hits: int) -> None:
    before = np.full((8, 1), 50_000)
    exact = 2 * min(binom.sf(hits - 1, 1_000, 0.05), binom.cdf(hits, 1_000, 0.05))
    mine = suspect.chance(np.array([hits]), np.array([1_000]), before, before * 20)
    assert np.log(mine) == pytest.approx(np.log(exact), rel=0.05, abs=0.3)


def test_windows_that_differ_make_it_less_certain() -> None:
    sizes = np.full((8, 1), 1_000)
    calm = np.full((8, 1), 50)
    uneven = np.array([[20], [80]] * 4)
    asked = (np.array([90]), np.array([1_000]))
    assert suspect.chance(*asked, calm, sizes) < 1e-5
    assert suspect.chance(*asked, uneven, sizes) > 0.01


def test_what_is_too_little_to_matter_is_none_however_sure() -> None:
    rows = world(8, rows=200_000, blocks=4)
    told = suspect.counts(flipped(rows, newest(rows), 0.004), CLASSES, LEVEL)
    assert told[0].chance < LEVEL / 100
    assert not any(count.is_suspect for count in told)


@pytest.mark.parametrize("bad", ["none", "all"])
def test_a_window_without_or_with_nothing_but_a_class_is_no_error(bad: str) -> None:
    rows = world(9)
    label = np.where(rows.block == 0, float(bad == "all"), rows.label)
    assert "all rows" in found(replace(rows, label=label))
