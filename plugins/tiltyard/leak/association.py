"""Statistical evidence: a column that tells the label in a way that honest ones seldom do. Pure."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Bools
from tiltyard.leak.case import ALPHA, FEWEST, Case
from tiltyard.leak.intervals import expected, odds_interval, proportion_interval
from tiltyard.leak.reading import Reading
from tiltyard.leak.suspicion import Example, Rates, Suspicion, Untested

TOO_GOOD = 0.95
"""AUC from which on one column by itself is too good: it puts 19 of 20 pairs of rows in the right order. The best
single column that was known ahead reaches .66 to .80 on the data sets of docs/reference/figures-leakage.md; .95 leaves
room for one that is honest and very strong, and the interval's lower end has to lie above it."""
TOO_GOOD_AMOUNT = 0.99
"""The same where the label is an amount: there yesterday's amount honestly reaches .97. Also the correlation with the
label's rank from which on a column is all but the amount itself, in whatever unit."""
PURE = 0.1
"""A subset of rows is all but pure when less than a tenth of it is of the rarer class, at the interval's
unfavourable end ..."""
PURE_ODDS = 20.0
"""... and its odds are twenty times the base's, either way: three times what counts as a large effect (6.7; Chen,
Cohen, Chen 2010, Commun. Stat. 39). A risk factor that is honest makes a class likely, seldom certain."""
DEFAULT = 0.1
"""A value that fewer rows share is not a default."""
SUBSETS = 8
"""Subsets of a column's rows that are tried; its intervals are that much wider."""
UNEXPECTED = 0.05
"""Rows of which the other columns say with a chance of 19 in 20 that the value would be there."""
EXPLAINED = 20
"""Subsets at most that are tried to be explained by other columns: each asks all of them."""
FEW_LEVELS = 4
"""Flags and the like: that one of them is set may need explaining, too."""
ALIKE = 0.5
"""Kappa of two versions of one thing: moderate agreement and better (Landis, Koch 1977, Biometrics 33)."""
TOLD_ODDS = 5.0
"""Odds ratio, at the nearer end of its interval, of the label where two versions differ: an address of delivery that
is not that of the bill doubles or triples a risk."""
SKETCHED, DRAWN, PAIRS = 400, 6, 200
"""Rows and random signs with which pairs are looked for, and how many pairs are judged at most."""


def too_good(case: Case) -> Iterator[Suspicion | Untested]:
    """A column that tells the label by itself.

    The AUC is that of the rate per value or bin, learnt at other times on other entities, so that neither an id nor
    a memory of the entity helps. The level is absolute: strong is not suspicious, all but certain is. Where the label
    is an amount, its rank is told as well as on which side of the median it lies.
    """
    level = TOO_GOOD if case.ranks is None else TOO_GOOD_AMOUNT
    aucs = case.aucs
    best = sorted((auc for auc, _, _ in aucs.values()), reverse=True)
    elsewhere = _elsewhere(case)
    for name, (auc, low, high) in aucs.items():
        if low < level:
            if case.ranks is not None:
                yield from _amount(case, case.readings[name])
            continue
        honest = [auc_of_column for auc_of_column in best if auc_of_column < level]
        others = "the only other column" if len(honest) == 1 else f"the best of the {len(honest)} other columns"
        beside = f"; {others} reaches {honest[0]:.3f}" if honest else ""
        yield Suspicion(
            name,
            "warning",
            "too_good",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"By itself it tells the label with an AUC of {auc:.3f} ({low:.3f} to {high:.3f}), {elsewhere}{beside}.",
            (),
            case.rates(case.readings[name]),
        )


def _elsewhere(case: Case) -> str:
    """Where a rate was learnt; without an entity every row is one of its own."""
    return f"learnt on other {'rows' if case.sample.entity is None else 'entities'} and other times"


def _amount(case: Case, reading: Reading) -> Iterator[Suspicion]:
    correlation, low, high = case.rank_correlation_of(reading)
    if low < TOO_GOOD_AMOUNT:
        return
    yield Suspicion(
        reading.name,
        "warning",
        "too_good",
        round(correlation, 4),
        (round(low, 4), round(high, 4)),
        f"By itself it tells the label's rank with a correlation of {correlation:.3f} ({low:.3f} to {high:.3f}), "
        f"{_elsewhere(case)}.",
        (),
        case.rates(reading),
    )


def defaults(case: Case) -> Iterator[Suspicion | Untested]:
    """Filled in or not, default or not: a subset of rows that is all but of one class.

    Values are missing for honest reasons, too (a new customer has no history), and those may go with the label. So
    it is also tried on the rows where the other columns don't make one expect it, as learnt on the class in which it
    is rarer: a value that was blanked by the outcome itself is missing where nothing else explains it.
    """
    doubtful: list[tuple[float, Reading, str, Bools]] = []
    for reading in case.readings.values():
        subsets = _subsets(reading)
        pure_subsets = [pure for title, rows in subsets if (pure := _pure(case, reading, title, rows))]
        if pure_subsets:
            yield min(pure_subsets, key=lambda pure: pure[0])[1]
        elif reading.missing.any() or len(reading.labels) <= FEW_LEVELS:
            rare = [(title, rows) for title, rows in subsets if FEWEST <= rows.sum() < case.rows / 2]
            for title, rows in rare:
                low, high, odds = odds_interval(
                    case.label[rows], case.label[~rows], ALPHA / len(case.readings), case.spread
                )
                if not low <= 1 <= high:
                    doubtful.append((abs(np.log(odds)), reading, title, rows))
    doubtful.sort(key=lambda doubt: -doubt[0])
    suspects = set()
    for _, reading, title, rows in doubtful[:EXPLAINED]:
        unexpected = _unexpected(case, reading, rows)
        pure = _pure(case, reading, f"{title} and the other columns don't make one expect that", unexpected)
        if pure and reading.name not in suspects:
            suspects.add(reading.name)
            yield pure[1]
    for name in dict.fromkeys(reading.name for _, reading, _, _ in doubtful[EXPLAINED:]):
        if name not in suspects:
            why = f"It was not tried to explain it by the other columns: only the {EXPLAINED} strongest were."
            yield Untested(name, "default_tracks_label", why)


def _subsets(reading: Reading) -> list[tuple[str, Bools]]:
    """The rows that hold the commonest value, or that are missing, and those that don't.

    A commonest value of few rows is no default: it is a batch that came at once, and shares its fate.
    """
    counts = np.bincount(reading.codes, minlength=len(reading.labels))
    mode = int(np.argmax(counts))
    missing = [("it is missing", reading.codes == 0), ("it is filled in", reading.codes != 0)] if counts[0] else []
    if mode == 0 or counts[mode] < DEFAULT * len(reading.codes):
        return missing
    subsets = [
        (f"it holds {reading.labels[mode]}, its commonest value", reading.codes == mode),
        (f"it holds anything but {reading.labels[mode]}", reading.codes != mode),
    ]
    return subsets + missing


def _unexpected(case: Case, reading: Reading, rows: Bools) -> Bools:
    """Those of `rows` of which the other columns say that they are not among `rows`. Columns that say the same thing
    in other words are not asked."""
    twins = [twin for twin in case.readings.values() if twin.name != reading.name]
    more_positive = rows[case.label].mean() > rows[~case.label].mean()
    learn = ~case.label if more_positive else case.label
    chance = expected(rows.astype(np.float64), twins, learn, lambda twin: _says(twin, rows))
    unexpected: Bools = rows & (chance <= UNEXPECTED)
    return unexpected


def _says(twin: Reading, rows: Bools) -> bool:
    """A level of another column is there in the same rows."""
    inside = np.bincount(twin.codes[rows], minlength=len(twin.labels))
    size = np.bincount(twin.codes, minlength=len(twin.labels))
    return bool((inside >= 0.9 * (rows.sum() + size - inside)).any())


def _pure(case: Case, reading: Reading, title: str, rows: Bools) -> tuple[float, Suspicion] | None:
    """(how much rarer the excluded class is, the suspicion) when a subset is all but pure."""
    size, inside, base = int(rows.sum()), int(case.label[rows].sum()), case.base
    if size < FEWEST or PURE < inside / size < 1 - PURE:
        return None
    entities = case.count_entities(rows)
    if min(entities, case.count_entities(~rows)) < FEWEST:
        return None
    low, high = proportion_interval(inside / size * entities, entities, ALPHA / len(case.readings) / SUBSETS)
    odds = base / (1 - base)
    if high <= PURE and high / (1 - high) <= odds / PURE_ODDS:
        excluded, ratio, wrong, usual = "positive", high / (1 - high) / odds, inside, base
    elif 1 - low <= PURE and low / (1 - low) >= odds * PURE_ODDS:
        excluded, ratio, wrong, usual = "negative", (1 - low) / low * odds, size - inside, 1 - base
    else:
        return None
    suspicion = Suspicion(
        reading.name,
        "warning",
        "default_tracks_label",
        round(inside / size, 5),
        (round(low, 5), round(high, 5)),
        f"Of {size} rows where {title}, {wrong} are {excluded}; {size * usual:.0f} would be by the base rate. The "
        f"share of positives there is {inside / size:.2%} ({low:.2%} to {high:.2%}), in all rows {base:.2%}.",
        case.examples(reading.name, rows),
        case.rates(reading),
    )
    return ratio, suspicion


def copies(case: Case) -> Iterator[Suspicion | Untested]:
    """Two columns that hold the same in most rows, more than by chance (Cohen's kappa; Cohen 1960), where the rows in
    which they differ tell the label: one of them was changed afterwards. Named is the one that tells the label
    better by itself."""
    pairs, skipped = _likely_pairs(case)
    if skipped:
        yield Untested("*", "revised_copy", skipped)
    alpha = ALPHA / max(len(case.readings), 1)
    for pair in pairs:
        earlier, later = sorted(
            (case.readings[name] for name in reversed(pair)),
            key=lambda reading: case.aucs.get(reading.name, (0.0,))[0],
        )
        both = ~earlier.missing & ~later.missing
        differ = both & ~_same(earlier, later)
        same = both & ~differ
        kappa = 1 - (differ.sum() / max(both.sum(), 1)) / max(1 - _chance(earlier, later, both), 1e-9)
        if kappa < ALIKE or min(differ.sum(), same.sum()) / case.spread < FEWEST:
            continue
        low, high, odds = odds_interval(case.label[differ], case.label[same], alpha, case.spread)
        if not (low >= TOLD_ODDS or high <= 1 / TOLD_ODDS):
            continue
        yield Suspicion(
            later.name,
            "warning",
            "revised_copy",
            round(odds, 4),
            (round(low, 4), round(high, 4)),
            f"It equals {earlier.name} in {same.sum()} of {both.sum()} rows (kappa {kappa:.2f}); of the {differ.sum()} "
            f"where it differs {case.label[differ].mean():.1%} are positive, of the others "
            f"{case.label[same].mean():.1%}: odds ratio {odds:.3g} ({low:.3g} to {high:.3g}).",
            _beside(case, later, earlier, differ),
            Rates(
                x=("equal", "different"),
                rate=tuple(round(float(case.label[part].mean()), 5) for part in (same, differ)),
                rows=tuple(int(part.sum()) for part in (same, differ)),
                base=round(case.base, 5),
                xlabel=f"{later.name} and {earlier.name}",
            ),
        )


def _beside(case: Case, later: Reading, earlier: Reading, differ: Bools) -> tuple[Example, ...]:
    """The first rows in which two columns differ, with the values of both."""
    if earlier.kind == "number":
        return case.examples(later.name, differ, **{earlier.name: earlier.values})
    examples = case.examples(later.name, differ)
    return tuple(
        {**example, earlier.name: earlier.show(int(row))}
        for example, row in zip(examples, np.flatnonzero(differ), strict=False)
    )


def _likely_pairs(case: Case) -> tuple[list[tuple[str, str]], str]:
    """Pairs that agree on a sample of rows; (pairs, what was left out).

    Every value is drawn a random sign, the same in all columns; the correlation of two columns' signs estimates how
    much more often than by chance they hold the same value.
    """
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(case.rows)[:SKETCHED])
    names, hashes = [], []
    for name, reading in case.readings.items():
        if reading.kind == "instant" or len(reading.labels) < 4:
            continue
        picked = reading.raw.iloc[rows]
        values = reading.values[rows] if reading.values is not None else picked.astype(str).to_numpy(dtype=object)
        names.append(name)
        hashes.append(pd.util.hash_array(np.asarray(values)))
    if len(names) < 2:
        return [], ""
    table = np.stack(hashes)
    alike = np.zeros((len(names), len(names)), dtype=np.float32)
    for _ in range(DRAWN):
        factor = np.uint64(rng.integers(1, 2**62) * 2 + 1)
        signs = ((table * factor) >> np.uint64(63)).astype(np.float32) * 2 - 1
        signs -= signs.mean(axis=1, keepdims=True)
        spread = signs.std(axis=1, keepdims=True)
        signs /= np.where(spread > 0, spread, 1)
        alike += signs @ signs.T / (table.shape[1] * DRAWN)
    first, second = np.nonzero(np.triu(alike > 0.6 * ALIKE, 1))
    order = np.argsort(-alike[first, second], kind="stable")
    pairs = [(names[first[place]], names[second[place]]) for place in order[:PAIRS].tolist()]
    skipped = (
        f"{len(order) - PAIRS} of {len(order)} pairs of alike columns were left out." if len(order) > PAIRS else ""
    )
    return pairs, skipped


def _same(first: Reading, second: Reading) -> Bools:
    """n rows in which both hold the same, as numbers where both are such, else as text."""
    if first.values is not None and second.values is not None:
        equal: Bools = first.values == second.values
        return equal
    texts = [reading.raw.astype(str).to_numpy(dtype=object) for reading in (first, second)]
    return np.asarray(texts[0] == texts[1], dtype=bool)


def _chance(first: Reading, second: Reading, both: Bools) -> float:
    """Share of rows in which two columns of these distributions agree by chance."""
    shares = []
    for reading in (first, second):
        values = reading.values if reading.values is not None else reading.raw.astype(str)
        shares.append(pd.Series(values)[both].value_counts(normalize=True))
    return float((shares[0] * shares[1]).sum())
