"""Evidence about time: instants after the prediction, and columns that are made of the outcome's own time. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.case import ALPHA, FEWEST, ONE_INSTANT, Case, lasting, offsets
from tiltyard.leak.intervals import FITTED, expected, number_codes, proportion_interval
from tiltyard.leak.reading import Reading
from tiltyard.leak.suspicion import Rates, Suspicion, Untested

NEVER = 50 * 366 * 86_400.0
"""An instant so many seconds after the prediction (9999-12-31) stands for "not yet"; it is a default, not an event."""
FEW_DATES = 5
"""Different numbers below which a column may read as dates by chance: of those with eight digits 4 % do."""
ALONG = 0.15
"""How far from one second per second numbers may run beside the predictions to be taken for instants without doubt."""
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
WHOLE_UNITS = {"nanoseconds": 1e-9, "microseconds": 1e-6, "milliseconds": 1e-3, **UNITS, "weeks": 604_800.0}
"""Units in which a column may hold the whole wait."""
IS_THE_WAIT = 0.99
"""Share of the rows in which a column that is the wait has to agree with it: the rest is mended data."""
PROBE = 500
"""Number of rows by which a column is ruled out before all are looked at."""
FEWEST_WAITS = 10
"""Different waits, in a column's unit, below which an agreement may be a plan's: 30 days, always."""
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


def instants(case: Case) -> Iterator[Suspicion | Untested]:
    """A value that is an instant after the prediction. Exact: it counts rows, and one is enough."""
    assert case.prediction is not None
    for name, reading in case.readings.items():
        if reading.kind != "instant" or reading.values is None:
            continue
        offset = reading.values - case.prediction
        if reading.day_only:  # of a date only the day is known; in the prediction's zone it may begin a day earlier
            late = reading.values > np.floor(case.prediction / 86_400) * 86_400
        else:
            late = offset > ONE_INSTANT
        late &= offset < NEVER
        there = ~np.isnan(offset)
        if not late.any():
            continue
        share = late.sum() / there.sum()
        beside = ""
        if 0 < late.sum() < there.sum() and 0 < case.label.sum() < case.rows:
            rates = case.label[late].mean(), case.label[there & ~late].mean()
            beside = f"; of those {rates[0]:.1%} are positive, of the others {rates[1]:.1%}"
        doubt = _doubt(reading, case.prediction)
        beside += f". It is no more than a warning: {doubt}" if doubt else ""
        yield Suspicion(
            name,
            "warning" if doubt else "critical",
            "instant_after_prediction",
            float(share),
            None,
            f"{late.sum()} of {there.sum()} rows ({share:.1%} of rows) hold an instant later than the prediction, "
            f"by {lasting(float(np.median(offset[late])))} in the median ({reading.written}){beside}.",
            case.examples(name, late),
            offsets(offset[there], case.label[there]),
        )


def _doubt(reading: Reading, prediction: Floats) -> str | None:
    """Why numbers of which nobody has said that they are instants may be none; None where there is no doubt.

    Numbers of orders and of customers grow with time as well, and lie where seconds since 1970 do. But instants go
    along with the predictions one second per second.
    """
    assert reading.values is not None
    here = ~np.isnan(reading.values) & ~np.isnan(prediction)
    values = reading.values[here]
    if reading.written == "yyyymmdd" and (number := len(np.unique(values))) < FEW_DATES:
        return f"that its numbers are dates is a guess, of {number} different ones"
    if reading.written.startswith("epoch"):
        at = prediction[here] - prediction[here].mean()
        slope = float(at @ (values - values.mean()) / (at @ at)) if at.any() else 0.0
        if abs(slope - 1) > ALONG:
            return (
                f"that its numbers are instants is a guess, as {reading.written}; they run {slope:.3g} times as fast "
                "as the predictions"
            )
    return None


@dataclass(frozen=True)
class _Event:
    """The rows whose outcome came at a time of its own, not at the end of a horizon."""

    rows: Bools
    """n rows of the case."""
    wait: Floats
    """n seconds from the prediction to the outcome; NaN where it is not known."""


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


def parts(case: Case) -> Iterator[Suspicion | Untested]:
    """Columns that, added up, are the time to the outcome: a delay, a duration that was measured afterwards.

    The time is regressed on the numeric columns, one after the other (orthogonal matching pursuit; Pati, Rezaiifar,
    Krishnaprasad 1993). A column is a part of it when its coefficient is one, in seconds, minutes, hours or days,
    among positives and among negatives alike, and the regression reproduces the time in both. A planned duration is
    such a part, too; so a part is named only if what the other columns don't tell of it tells the label. A column that
    by itself is the whole time is named whatever it tells.
    """
    numbers = {
        name: reading
        for name, reading in case.readings.items()
        if reading.kind == "number" and reading.values is not None
    }
    event = _event(case, None)
    waits = _waits(case, numbers, event.wait)
    case.parts = frozenset(waits)
    sides = [event.rows & case.label, event.rows & ~case.label]
    if min(int(side.sum()) for side in sides) < 10 * FEWEST:
        why = "Too few outcomes have a time of their own, in one of the classes."
        yield from waits.values()
        yield Untested("*", "part_of_outcome_time", why, "outcomes")
        return
    parts_of_wait = _unit_parts(case, numbers, event, sides)
    case.parts |= frozenset(parts_of_wait)
    honest = case.unsuspected
    for name, part in parts_of_wait.items():
        reading, unit, shares = numbers[name], part.unit, part.shares
        assert reading.values is not None
        here = ~reading.missing
        surprise = np.where(here, reading.values - expected(np.nan_to_num(reading.values), honest, here), np.nan)
        auc, low, high = case.auc_of(*number_codes(surprise))
        if not low >= TELLS:
            continue
        beside = ", ".join(twin for twin in parts_of_wait if twin != name) or "what else is there"
        waits.pop(name, None)
        yield Suspicion(
            name,
            "critical",
            "part_of_outcome_time",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"In {unit} it is a part of the time from the prediction to the outcome: with {beside} "
            f"it reproduces {shares[0]:.1%} of that time's variance among positives and {shares[1]:.1%} among "
            f"negatives, one {unit[:-1]} for one; what the other columns don't tell of it tells the label with an AUC "
            f"of {auc:.3f} ({low:.3f} to {high:.3f}).",
            case.examples(name, event.rows & here, **{f"{unit} to the outcome": event.wait / UNITS[unit]}),
            offsets(reading.values[here] * UNITS[unit], case.label[here]),
        )
    yield from waits.values()


def _agreement(values: Floats, waits: Floats) -> Bools:
    """(rows,) whether a column is the wait, exactly or rounded in the one way that fits most rows."""
    slack = 1e-6 * np.maximum(np.abs(waits), 1.0)
    ways: list[Bools] = [np.abs(values - waits) <= slack]
    if not (values % 1).any():
        ways += [np.abs(values - turn(waits)) <= slack for turn in (np.floor, np.ceil, np.round)]
    return max(ways, key=lambda way: way.sum())


def _waits(case: Case, numbers: Mapping[str, Reading], wait: Floats) -> dict[str, Suspicion]:
    """Column → the warning that it is the whole time from the prediction to the outcome, in one unit. Exact.

    It may tell nothing of the label, and be known ahead where the outcome's time is (a term that ends when it was said
    to): so it is a warning. A column in whole units may be rounded in any way, but in one way throughout.
    """
    suspicions = {}
    for name, reading in numbers.items():
        assert reading.values is not None
        there = ~np.isnan(reading.values) & ~np.isnan(wait) & (wait >= 0)
        rows = int(there.sum())
        if rows < FEWEST:
            continue
        values, seconds = reading.values[there], wait[there]
        thin = slice(None, None, max(1, rows // PROBE))  # most columns are not it, which a few hundred rows show
        for unit, size in WHOLE_UNITS.items():
            if _agreement(values[thin], seconds[thin] / size).mean() < IS_THE_WAIT - 0.05:
                continue
            waits = seconds / size
            if len(np.unique(np.round(waits))) < FEWEST_WAITS:
                continue
            same = _agreement(values, waits)
            if same.sum() < IS_THE_WAIT * rows:
                continue
            where = np.zeros(case.rows, dtype=bool)
            where[np.flatnonzero(there)[same]] = True
            suspicions[name] = Suspicion(
                name,
                "warning",
                "part_of_outcome_time",
                round(float(same.sum() / rows), 5),
                None,
                f"In {same.sum()} of {rows} rows it is, in {unit}, the whole time from the prediction to the outcome, "
                "which nobody knows at the prediction unless it is said beforehand when the outcome comes.",
                case.examples(name, where, outcome_time=case.outcome),
                offsets(values * size, case.label[there]),
            )
            break
    return suspicions


@dataclass(frozen=True)
class _Part:
    """A column that is, one for one, a part of the time to the outcome."""

    unit: str
    """A key of `UNITS`: what the column is in."""
    shares: tuple[float, float]
    """Share of the wait's variance that all parts reproduce together, among positives and among negatives."""


def _unit_parts(case: Case, numbers: Mapping[str, Reading], event: _Event, sides: Sequence[Bools]) -> dict[str, _Part]:
    """Column → how it is a part of the wait; empty where the parts do not reproduce it.

    `sides`: the n rows of the positives and of the negatives whose outcome has a time of its own.
    """
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(np.flatnonzero(side))[: FITTED // 2] for side in sides]
    rows = np.concatenate(drawn)
    side = np.repeat([0, 1], [len(part) for part in drawn])
    wait = event.wait[rows]
    names, table = _candidates(case, numbers, rows, wait)
    if not names:
        return {}
    fitting = np.ones(len(rows), dtype=bool)
    places: list[int] = []
    for _ in range(3):  # each time without the rows that fit worst: a diversion, a typing error
        places = _pursuit(table[fitting], wait[fitting])
        if not places:
            return {}
        design = np.column_stack([np.ones(len(rows)), table[:, places]])
        weights = np.linalg.lstsq(design[fitting], wait[fitting], rcond=None)[0]
        residual = np.abs(wait - design @ weights)
        fitting = residual <= np.quantile(residual, 0.95)
    fits, shares = [], []
    for place in (0, 1):
        of_side = fitting & (side == place)
        if of_side.sum() < FEWEST or wait[of_side].std() == 0:
            return {}
        weights = np.linalg.lstsq(design[of_side], wait[of_side], rcond=None)[0]
        fits.append(weights[1:])
        shares.append(float(1 - (wait[of_side] - design[of_side] @ weights).var() / wait[of_side].var()))
    if min(shares) < REPRODUCED:
        return {}
    parts_of_wait = {}
    for place, column in enumerate(places):
        for unit, size in UNITS.items():
            if all(abs(fit[place] / size - 1) <= UNIT_SLACK for fit in fits):
                parts_of_wait[names[column]] = _Part(unit, (shares[0], shares[1]))
    return parts_of_wait


def _candidates(case: Case, numbers: Mapping[str, Reading], rows: Ints, wait: Floats) -> tuple[list[str], Floats]:
    """(names, table of rows × names) of the numeric columns that go along with the wait the most, the best first.

    A missing value counts as its column's mean.
    """
    columns: list[tuple[float, str, Floats]] = []
    for name, reading in numbers.items():
        if name in case.clocks:
            continue
        assert reading.values is not None
        values = reading.values[rows]
        here = ~np.isnan(values)
        filled: Floats = np.where(here, values, values[here].mean() if here.any() else 0.0)
        if filled.std() > 0 and wait.std() > 0:
            columns.append((abs(float(np.corrcoef(filled, wait)[0, 1])), name, filled))
    columns = sorted(columns, key=lambda column: -column[0])[:CANDIDATES]
    if not columns:
        return [], np.empty((len(rows), 0))
    return [name for _, name, _ in columns], np.stack([filled for _, _, filled in columns], axis=1)


def _pursuit(table: Floats, wait: Floats) -> list[int]:
    """Places of columns: the one that explains the most, then the most of what is left, down to a thousandth."""
    centred = table - table.mean(axis=0)
    scale = centred.std(axis=0)
    usable = scale > 0
    centred = centred / np.where(usable, scale, 1.0)
    residual = wait - wait.mean()
    total = float(residual @ residual)
    places: list[int] = []
    for _ in range(10):
        strength = np.where(usable, np.abs(centred.T @ residual), 0.0)
        strength[places] = 0.0
        best = int(np.argmax(strength))
        if strength[best] ** 2 / len(wait) < 1e-3 * total:
            break
        places.append(best)
        design = centred[:, places]
        residual = (wait - wait.mean()) - design @ np.linalg.lstsq(design, wait - wait.mean(), rcond=None)[0]
    return places


def clocks(case: Case) -> Iterator[Suspicion | Untested]:
    """A clock reading (HHMM, hour, minute ...) of something that came after the prediction.

    Modulo its turn, its distance from the prediction's own clock is taken. A reading of the prediction's clock, or of
    a plan that hangs on it, has a distance that tells nothing; one of what came later tells the label by it. It is
    named when the distance, or what the other columns don't tell of it, tells the label better than the reading
    itself and the prediction's clock do. That holds for readings of a recent past, too, so the outcome has to come the
    later the later the reading is, label for label: a past one does not move the outcome along. Where the outcome's
    time is not known, it is a warning.
    """
    assert case.prediction is not None
    honest = case.unsuspected
    for name, (turn, minutes) in case.clocks.items():
        clock = case.prediction / 60 % turn
        distance, middle = _distance(minutes, clock, turn, case.prediction)
        here = ~np.isnan(distance)
        surprise = np.where(here, distance - expected(np.nan_to_num(distance), honest, here), np.nan)
        auc, low, high = max(case.auc_of(*number_codes(np.round(values, 3))) for values in (distance, surprise))
        beside = max(case.aucs.get(name, (0.5,))[0], case.auc_of(*number_codes(clock))[0], 0.5)
        if not low >= beside + CLOCK_GAIN:
            continue
        shift = _moves_outcome(case, surprise, honest)
        if shift is not None and shift < MOVES:
            continue
        along = "; when the outcome came is not known, so that it may be a reading of a recent past"
        if shift is not None:
            along = f"; the later it reads, the later the outcome comes (correlation {shift:.2f} within the classes)"
        yield Suspicion(
            name,
            "warning" if shift is None else "critical",
            "clock_of_outcome",
            round(auc, 4),
            (round(low, 4), round(high, 4)),
            f"It reads as a clock that turns in {lasting(turn * 60)}; its distance from the prediction's own clock "
            f"({middle:+.0f} minutes in the mean) tells the label with an AUC of {auc:.3f} ({low:.3f} to {high:.3f}), "
            f"where the reading and the prediction's clock by themselves reach {beside:.3f}{along}.",
            case.examples(name, here, **{"minutes from the prediction's clock": distance + middle}),
            offsets(distance[here] * 60, case.label[here]),
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


def _moves_outcome(case: Case, surprise: Floats, honest: Sequence[Reading]) -> float | None:
    """Rank correlation of what is not expected of a column with what is not expected of the wait, within the classes;
    None when too few outcomes have a time of their own."""
    if case.outcome is None:
        return None
    event = _event(case, None)
    here = event.rows & ~np.isnan(surprise)
    if here.sum() < 10 * FEWEST:
        return None
    late = np.clip(event.wait, None, np.quantile(event.wait[here], 0.99))
    late = late - expected(np.nan_to_num(late), honest, here)
    ranks = []
    for values in (surprise, late):
        rank = pd.Series(values[here]).groupby(case.label[here]).rank(pct=True)
        ranks.append(rank.to_numpy() - 0.5)
    spread = ranks[0].std() * ranks[1].std()
    return float((ranks[0] * ranks[1]).mean() / spread) if spread else 0.0


def growing(case: Case) -> Iterator[Suspicion | Untested]:
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
    readings = {name: reading.only(rows) for name, reading in case.readings.items()}
    alpha = ALPHA / max(len(case.readings), 1)
    for name, reading in readings.items():
        if reading.kind == "instant":
            continue
        counts = np.bincount(reading.codes, minlength=len(reading.labels))
        default = int(np.argmax(counts))
        holds = (reading.codes != default).astype(np.float64)
        entities = soon.sum() / case.spread
        if min(holds.sum(), len(holds) - holds.sum()) < FEWEST or entities < FEWEST:
            continue
        if holds[soon].mean() > SOON_LIMIT * holds[~soon].mean():
            continue
        usual = np.clip(expected(holds, [twin for twin in readings.values() if twin.name != name], ~soon), 0.0, 1.0)
        usual_share = float(usual[soon].mean())
        if usual_share * entities < 10:
            continue
        low, high = proportion_interval(holds[soon].sum() / case.spread, entities, alpha)
        ratio = holds[soon].mean() / usual_share
        between = ~soon & ~late
        steps = [
            ratio,
            *(holds[part].mean() / max(usual[part].mean(), 1e-9) for part in (between, late) if part.any()),
        ]
        if high / usual_share > SOON_LIMIT or steps != sorted(steps):
            continue
        where = np.zeros(case.rows, dtype=bool)
        where[np.flatnonzero(rows)[soon & (holds > 0)]] = True
        yield Suspicion(
            name,
            "critical",
            "grows_until_outcome",
            round(float(ratio), 4),
            (round(low / usual_share, 4), round(high / usual_share, 4)),
            f"Where the outcome came within {lasting(max(soon_until, 1.0))}, {holds[soon].mean():.1%} of {soon.sum()} "
            f"rows hold something but {reading.labels[default]}; {usual_share:.1%} would by their other columns, as "
            f"learnt where it took longer: {ratio:.2f} times as many ({low / usual_share:.2f} to "
            f"{high / usual_share:.2f}), and {steps[-1]:.2f} where it took more than {lasting(late_from)}.",
            case.examples(name, where, **{"days to the outcome": event.wait / 86_400}),
            _by_wait(wait, holds),
        )


def _by_wait(wait: Floats, holds: Floats) -> Rates:
    """The plot of how many rows hold something, by how long the outcome took."""
    edges = np.unique(np.quantile(wait, np.linspace(0, 1, 11)))
    place = np.clip(np.searchsorted(edges, wait, side="left") - 1, 0, max(len(edges) - 2, 0))
    bars = [place == number for number in range(max(len(edges) - 1, 1)) if (place == number).any()]
    return Rates(
        x=tuple(lasting(float(wait[bar].max())) for bar in bars),
        rate=tuple(round(float(holds[bar].mean()), 5) for bar in bars),
        rows=tuple(int(bar.sum()) for bar in bars),
        base=round(float(holds.mean()), 5),
        xlabel="time from the prediction to the outcome, up to",
        title="share of rows that hold something, by how long the outcome took",
    )
