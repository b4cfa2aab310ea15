"""Evidence about time: instants after the prediction, and columns that are made of the outcome's own time. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiltyard.leak.case import ALPHA, FEWEST, Case, Finding, Untested, lasting, offsets
from tiltyard.leak.intervals import FITTED, expected, number_codes, proportion_interval
from tiltyard.leak.reading import Bools, Floats, Reading

NEVER = 50 * 366 * 86_400.0
"""An instant so many seconds after the prediction (9999-12-31) stands for "not yet"; it is a default, not an event."""
SOON = 0.1
"""The share of outcomes that came soonest, with their ties, in which a growing column is looked for."""
SOON_LIMIT = 0.5
"""Less than half of what is expected, at the interval's upper end: what the other columns don't explain of an honest
column (a channel, a deposit) makes it rarer by a third at the most."""
CENSORED = 0.05
"""A wait that so many rows share to the second is where looking ended, not where something came."""
UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3_600.0, "days": 86_400.0}
UNIT_SLACK = 0.1
"""How far from one a coefficient may lie: parts are rounded, and what is left out (taxiing) goes along with them."""
CANDIDATES = 200
"""Numeric columns that are tried as parts: those that go along with the wait the most."""
REPRODUCED = 0.9
"""Share of the waiting time's variance that its parts have to reproduce, in each class: a sum, not a correlation."""
TELLS = 0.55
"""AUC, at its interval's lower end, from which on what is left of a part tells the label: a plan's rest is at .5."""
MOVES = 0.1
"""Rank correlation with the wait, within the classes, from which on a reading moves along with the outcome."""
CLOCK_GAIN = 0.05
"""By how much the distance has to tell the label better, in AUC, at the interval's lower end."""


def instants(case: Case) -> Iterator[Finding | Untested]:
    """A value that is an instant after the prediction. Exact: it counts rows, and one is enough."""
    assert case.prediction is not None
    for name, reading in case.readings.items():
        if reading.kind != "instant" or reading.values is None or name in case.sample.planned:
            continue
        offset = reading.values - case.prediction
        if reading.day_only:  # of a date only the day is known; in the prediction's zone it may begin a day earlier
            late = reading.values > np.floor(case.prediction / 86_400) * 86_400
        else:
            late = offset > 0
        late &= offset < NEVER
        judged = ~np.isnan(offset)
        if not late.any():
            continue
        share = late.sum() / judged.sum()
        told = ""
        if 0 < late.sum() < judged.sum() and 0 < case.label.sum() < case.rows:
            rates = case.label[late].mean(), case.label[judged & ~late].mean()
            told = f"; of those {rates[0]:.1%} are positive, of the others {rates[1]:.1%}"
        yield Finding(
            name,
            "critical",
            "instant_after_prediction",
            float(share),
            None,
            f"{late.sum()} of {judged.sum()} rows ({share:.1%} of rows) hold an instant later than the prediction, "
            f"by {lasting(float(np.median(offset[late])))} in the median ({reading.written}){told}.",
            case.examples(name, late),
            offsets(case, offset[judged], case.label[judged]),
        )


@dataclass(frozen=True)
class _Event:
    """The rows whose outcome came at a time of its own, not at the end of a horizon."""

    rows: Bools
    wait: Floats
    """n seconds from the prediction to the outcome."""


def _event(case: Case, side: bool | None) -> _Event:
    """`side`: the class; None for both. A wait that one row in twenty shares to the second, and that is longer than
    the median, is the horizon's end: such rows tell only that nothing had come."""
    assert case.outcome is not None and case.prediction is not None
    wait: Floats = case.outcome - case.prediction
    rows: Bools = ~np.isnan(wait) & (wait >= 0)
    if side is not None:
        rows = rows & (case.label == side)
    if rows.any():
        waits, counts = np.unique(np.round(wait[rows]), return_counts=True)
        ends = waits[(counts > CENSORED * rows.sum()) & (waits > np.median(wait[rows]) - 1)]
        rows = rows & ~np.isin(np.round(wait), ends)
    return _Event(rows, wait)


def parts(case: Case) -> Iterator[Finding | Untested]:
    """Columns that, added up, are the time to the outcome: a delay, a duration that was measured afterwards.

    The time is regressed on the numeric columns, one after the other (orthogonal matching pursuit; Pati, Rezaiifar,
    Krishnaprasad 1993). A column is a part of it when its coefficient is one, in seconds, minutes, hours or days,
    among positives and among negatives alike, and the regression reproduces the time in both. A planned duration is
    such a part, too; so a part is named only if what the other columns don't tell of it tells the label.
    """
    numbers = {n: r for n, r in case.readings.items() if r.kind == "number" and r.values is not None}
    both = _event(case, None)
    sides = [both.rows & case.label, both.rows & ~case.label]
    if min(int(side.sum()) for side in sides) < 10 * FEWEST:
        why = "Too few outcomes have a time of their own, in one of the classes."
        yield Untested("*", "part_of_outcome_time", why, "outcomes")
        return
    named = _unit_parts(case, numbers, both, sides)
    case.parts = frozenset(named)
    known = case.unsuspected
    for name, (unit, size, shares) in named.items():
        reading = numbers[name]
        assert reading.values is not None
        here = ~reading.missing
        surprise = np.where(here, reading.values - expected(np.nan_to_num(reading.values), known, here), np.nan)
        auc, low, high = case.auc_of(*number_codes(surprise))
        if not low >= TELLS:
            continue
        wait = both.wait / size
        beside = ", ".join(other for other in named if other != name) or "what else is there"
        yield Finding(
            name,
            "critical",
            "part_of_outcome_time",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"In {unit} it is a part of the time from the prediction to the outcome: with {beside} "
            f"it reproduces {shares[0]:.1%} of that time's variance among positives and {shares[1]:.1%} among "
            f"negatives, one {unit[:-1]} for one; what the other columns don't tell of it tells the label with an AUC "
            f"of {auc:.3f} ({low:.3f} to {high:.3f}).",
            case.examples(name, both.rows & here, **{f"{unit} to the outcome": wait}),
            offsets(case, reading.values[here] * size, case.label[here]),
        )


def _unit_parts(
    case: Case, numbers: Mapping[str, Reading], both: _Event, sides: Sequence[Bools]
) -> dict[str, tuple[str, float, tuple[float, float]]]:
    """Column → (unit, its seconds, variance reproduced among positives and negatives)."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(side))[: FITTED // 2] for side in sides]
    rows = np.concatenate(chosen)
    side = np.repeat([0, 1], [len(part) for part in chosen])
    wait = both.wait[rows]
    columns: list[tuple[float, str, Floats]] = []
    for name, reading in numbers.items():
        if name in case.clocks:
            continue
        assert reading.values is not None
        picked = reading.values[rows]
        here = ~np.isnan(picked)
        filled: Floats = np.where(here, picked, picked[here].mean() if here.any() else 0.0)
        if filled.std() > 0 and wait.std() > 0:
            columns.append((abs(float(np.corrcoef(filled, wait)[0, 1])), name, filled))
    columns = sorted(columns, key=lambda column: -column[0])[:CANDIDATES]
    if not columns:
        return {}
    names = [name for _, name, _ in columns]
    table = np.stack([filled for _, _, filled in columns], axis=1)
    kept = np.ones(len(rows), dtype=bool)
    selected: list[int] = []
    for _ in range(3):  # each time without the rows that fit worst: a diversion, a typing error
        selected = _pursuit(table[kept], wait[kept])
        if not selected:
            return {}
        design = np.column_stack([np.ones(len(rows)), table[:, selected]])
        weights = np.linalg.lstsq(design[kept], wait[kept], rcond=None)[0]
        off = np.abs(wait - design @ weights)
        kept = off <= np.quantile(off, 0.95)
    fits, shares = [], []
    for place in (0, 1):
        mine = kept & (side == place)
        if mine.sum() < FEWEST or wait[mine].std() == 0:
            return {}
        weights = np.linalg.lstsq(design[mine], wait[mine], rcond=None)[0]
        fits.append(weights[1:])
        shares.append(float(1 - (wait[mine] - design[mine] @ weights).var() / wait[mine].var()))
    if min(shares) < REPRODUCED:
        return {}
    found = {}
    for place, column in enumerate(selected):
        for unit, size in UNITS.items():
            if all(abs(fit[place] / size - 1) <= UNIT_SLACK for fit in fits):
                found[names[column]] = (unit, size, (shares[0], shares[1]))
    return found


def _pursuit(table: Floats, wait: Floats) -> list[int]:
    """Columns in the order in which they explain the most of what is left, while each explains a thousandth."""
    centred = table - table.mean(axis=0)
    scale = centred.std(axis=0)
    usable = scale > 0
    centred = centred / np.where(usable, scale, 1.0)
    left = wait - wait.mean()
    total = float(left @ left)
    selected: list[int] = []
    for _ in range(10):
        strength = np.where(usable, np.abs(centred.T @ left), 0.0)
        strength[selected] = 0.0
        best = int(np.argmax(strength))
        if strength[best] ** 2 / len(wait) < 1e-3 * total:
            break
        selected.append(best)
        design = centred[:, selected]
        left = (wait - wait.mean()) - design @ np.linalg.lstsq(design, wait - wait.mean(), rcond=None)[0]
    return selected


def clocks(case: Case) -> Iterator[Finding | Untested]:
    """A clock reading (HHMM, hour, minute ...) of something that came after the prediction.

    Modulo its turn, its distance from the prediction's own clock is taken. A reading of the prediction's clock, or of
    a plan that hangs on it, has a distance that tells nothing; one of what came later tells the label by it. It is
    named when the distance, or what the other columns don't tell of it, tells the label better than the reading
    itself and the prediction's clock do. That holds for readings of a recent past, too, so the outcome has to come the
    later the later the reading is, label for label: a past one does not move the outcome along. Where the outcome's
    time is not known, it is a warning.
    """
    assert case.prediction is not None
    known = case.unsuspected
    for name, (turn, minutes) in case.clocks.items():
        clock = case.prediction / 60 % turn
        distance, middle = _distance(minutes, clock, turn, case.prediction)
        here = ~np.isnan(distance)
        surprise = np.where(here, distance - expected(np.nan_to_num(distance), known, here), np.nan)
        auc, low, high = max(case.auc_of(*number_codes(np.round(values, 3))) for values in (distance, surprise))
        beside = max(case.aucs.get(name, (0.5,))[0], case.auc_of(*number_codes(clock))[0], 0.5)
        if not low >= beside + CLOCK_GAIN:
            continue
        moved = _moves_outcome(case, surprise, known)
        if moved is not None and moved < MOVES:
            continue
        along = "; when the outcome came is not known, so that it may be a reading of a recent past"
        if moved is not None:
            along = f"; the later it reads, the later the outcome comes (correlation {moved:.2f} within the classes)"
        yield Finding(
            name,
            "warning" if moved is None else "critical",
            "clock_of_outcome",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"It reads as a clock that turns in {lasting(turn * 60)}; its distance from the prediction's own clock "
            f"({middle:+.0f} minutes in the mean) tells the label with an AUC of {auc:.3f} ({low:.3f} to {high:.3f}), "
            f"where the reading and the prediction's clock by themselves reach {beside:.3f}{along}.",
            case.examples(name, here, **{"minutes from the prediction's clock": distance + middle}),
            offsets(case, distance[here] * 60, case.label[here]),
        )


def _distance(minutes: Floats, clock: Floats, turn: float, prediction: Floats) -> tuple[Floats, float]:
    """(distance from what is usual, the usual distance), both in minutes, the first within half a turn.

    What is usual is taken of some 200 predictions in a row: the reading may be in a local time that has a summer.
    """
    offset = (minutes - clock) / turn * 2 * np.pi
    middle = float(np.angle(np.nanmean(np.exp(1j * offset))))
    order = np.argsort(prediction, kind="stable")
    block = np.empty(len(order), dtype=np.int64)
    block[order] = np.arange(len(order)) * max(len(order) // 200, 1) // max(len(order), 1)
    turned = np.angle(np.exp(1j * (offset - middle)))
    usual = pd.Series(turned).groupby(block).transform("median").to_numpy()
    distance: Floats = np.angle(np.exp(1j * (turned - usual))) / (2 * np.pi) * turn
    return distance, middle / (2 * np.pi) * turn


def _moves_outcome(case: Case, surprise: Floats, known: Sequence[Reading]) -> float | None:
    """Rank correlation of what is not expected of a column with what is not expected of the wait, within the classes;
    None when too few outcomes have a time of their own."""
    if case.outcome is None:
        return None
    event = _event(case, None)
    here = event.rows & ~np.isnan(surprise)
    if here.sum() < 10 * FEWEST:
        return None
    late = np.clip(event.wait, None, np.quantile(event.wait[here], 0.99))
    late = late - expected(np.nan_to_num(late), known, here)
    ranks = []
    for values in (surprise, late):
        rank = pd.Series(values[here]).groupby(case.label[here]).rank(pct=True)
        ranks.append(rank.to_numpy() - 0.5)
    spread = ranks[0].std() * ranks[1].std()
    return float((ranks[0] * ranks[1]).mean() / spread) if spread else 0.0


def growing(case: Case) -> Iterator[Finding | Untested]:
    """What was counted or written until the outcome, not until the prediction, is rare where the outcome came soon.

    Immortal time (Suissa 2008, "Immortal time bias in pharmacoepidemiology", Am. J. Epidemiol. 167): a request that is
    made, a change that is noted in the time between cannot be there before that time has passed. Among the rows of
    one class, those with the shortest wait are compared with what their other columns make one expect, as learnt on
    the rows with a longer one (indirect standardisation). A column that was known at the prediction holds what is
    expected of it, however soon the outcome came.
    """
    event = next((event for side in (True, False) if (event := _event(case, side)).rows.sum() >= 10 * FEWEST), None)
    if event is None:
        why = f"Fewer than {10 * FEWEST} outcomes of either class have a time of their own."
        yield Untested("*", "grows_until_outcome", why, "outcomes")
        return
    rows = event.rows
    wait = event.wait[rows]
    soon_until = float(np.quantile(wait, SOON))
    soon = wait <= soon_until
    if soon.mean() > 0.5:
        yield Untested("*", "grows_until_outcome", "More than half of the outcomes come at once.", "outcomes")
        return
    late_from = float(np.quantile(wait[~soon], 0.5))
    late = wait > late_from
    judged = {name: reading.only(rows) for name, reading in case.readings.items()}
    alpha = ALPHA / max(len(case.readings), 1)
    for name, reading in judged.items():
        if reading.kind == "instant":
            continue
        counts = np.bincount(reading.codes, minlength=len(reading.labels))
        default = int(np.argmax(counts))
        filled = (reading.codes != default).astype(np.float64)
        entities = soon.sum() / case.spread
        if min(filled.sum(), len(filled) - filled.sum()) < FEWEST or entities < FEWEST:
            continue
        if filled[soon].mean() > SOON_LIMIT * filled[~soon].mean():
            continue
        usual = np.clip(expected(filled, [r for n, r in judged.items() if n != name], ~soon), 0.0, 1.0)
        awaited = float(usual[soon].mean())
        if awaited * entities < 10:
            continue
        low, high = proportion_interval(filled[soon].sum() / case.spread, entities, alpha)
        ratio = filled[soon].mean() / awaited
        between = ~soon & ~late
        steps = [
            ratio,
            *(filled[part].mean() / max(usual[part].mean(), 1e-9) for part in (between, late) if part.any()),
        ]
        if high / awaited > SOON_LIMIT or steps != sorted(steps):
            continue
        where = np.zeros(case.rows, dtype=bool)
        where[np.flatnonzero(rows)[soon & (filled > 0)]] = True
        yield Finding(
            name,
            "critical",
            "grows_until_outcome",
            round(float(ratio), 4),
            (round(low / awaited, 4), round(high / awaited, 4)),
            f"Where the outcome came within {lasting(max(soon_until, 1.0))}, {filled[soon].mean():.1%} of {soon.sum()} "
            f"rows hold something but {reading.labels[default]}; {awaited:.1%} would by their other columns, as learnt "
            f"where it took longer: {ratio:.2f} times as many ({low / awaited:.2f} to {high / awaited:.2f}), and "
            f"{steps[-1]:.2f} where it took more than {lasting(late_from)}.",
            case.examples(name, where, **{"days to the outcome": event.wait / 86_400}),
            _by_wait(wait, filled, usual),
        )


def _by_wait(wait: Floats, filled: Floats, usual: Floats) -> Mapping[str, Any]:
    """Plot: how many are filled in by how long the outcome took, and how many would be by their other columns."""
    edges = np.unique(np.quantile(wait, np.linspace(0, 1, 11)))
    place = np.clip(np.searchsorted(edges, wait, side="left") - 1, 0, max(len(edges) - 2, 0))
    shown = [number for number in range(max(len(edges) - 1, 1)) if (place == number).any()]
    return {
        "shape": "rates",
        "title": "share of rows that hold something, by how long the outcome took",
        "x": [lasting(float(wait[place == number].max())) for number in shown],
        "rate": [round(float(filled[place == number].mean()), 5) for number in shown],
        "expected": [round(float(usual[place == number].mean()), 5) for number in shown],
        "rows": [int((place == number).sum()) for number in shown],
        "base": round(float(filled.mean()), 5),
        "xlabel": "time from the prediction to the outcome, up to",
    }
