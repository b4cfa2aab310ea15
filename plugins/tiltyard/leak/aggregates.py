"""Evidence from the log: a feature that has seen rows which came after its prediction. Pure."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.case import ALPHA, FEWEST, Case
from tiltyard.leak.entity_log import Aggregate, EntityLog, carried, every_aggregate, filters, read_log, running
from tiltyard.leak.intervals import proportion_interval
from tiltyard.leak.life import NEARLY_NONE, are_close, are_equal, first_outcome, shares_plot
from tiltyard.leak.reading import Reading
from tiltyard.leak.suspicion import Suspicion, Untested

NEARLY_ALL = 0.9
"""Share of the rows that tell two explanations apart in which one of them has to hold: the rest is rounding, a filter
on a handful of rows, a log that is a day younger than the table."""
PROBED = 3_000
"""Rows on which an aggregate is tried first; only what holds there is computed on all."""
_LOGGED = ("all of the entity's rows", "those up to the prediction")
_ENCODED = ("all rows, its own included", "the others")
"""Of an aggregate of the log, and of the label's mean: the rows that tell the future, and those that do not."""
SIZES = {"seconds": 1.0, "minutes": 60.0, "hours": 3_600.0, "days": 86_400.0}
"""Unit → seconds."""


def aggregates(case: Case) -> Iterator[Suspicion | Untested]:
    """A feature that equals an aggregate over all of its entity's rows, and not over those up to the prediction, where
    the two differ. Exact: it counts rows. Tried are count, sum, mean, maximum, minimum, last and number of different
    values of each column of the log, of all rows and of those that hold one value of a column that has few; the time
    since the last row; and, from the frame itself, the label's own mean, by entity and by category (a target encoding
    that has seen the row's own label).
    """
    yield from _encodings(case)
    log = read_log(case)
    if isinstance(log, str):
        yield Untested("*", "future_in_aggregate", log, "history")
        return
    numbers = {
        name: reading
        for name, reading in case.readings.items()
        if reading.values is not None and len(np.unique(reading.values[:PROBED])) > 2
    }
    suspicions = _in_log(case, log, numbers)
    yield from suspicions.values()
    for name, reading in numbers.items():
        if name not in suspicions and (suspicion := _since_last(case, reading, log)):
            yield suspicion
    yield from _overwritten(case, log)


def _in_log(case: Case, log: EntityLog, numbers: dict[str, Reading]) -> dict[str, Suspicion]:
    """Column → what it is suspected of: of the aggregates of the log that it equals the one that chance explains least.

    A column is named only where chance does not explain it, after as many trials as there were; and not where it holds
    what a column of the log held by the prediction: how many guests a booking is for is the sum over its one row that
    says that they have come, too.
    """
    held = [
        running(log, "", carried(log, column.values)).by_prediction
        for column in log.columns.values()
        if column.values is not None
    ]
    best: dict[str, tuple[float, float, Suspicion]] = {}
    trials = 0
    for aggregate in every_aggregate(log):
        # without a row up to the prediction there is nothing to compare: what never changes would look like the future
        comparable = ~np.isnan(aggregate.whole) & ~np.isnan(aggregate.by_prediction)
        differ = ~are_close(aggregate.whole, aggregate.by_prediction) & comparable & (log.end > log.begin)
        rows = np.flatnonzero(differ)
        if len(np.unique(case.entities[rows])) < FEWEST:
            continue
        probe = rows[:: max(1, len(rows) // PROBED)]
        trials += len(numbers)
        for name, reading in numbers.items():
            assert reading.values is not None
            if are_close(reading.values[probe], aggregate.whole[probe]).mean() < NEARLY_ALL * 0.9:
                continue
            if any(are_close(reading.values[rows], values[rows]).mean() >= NEARLY_ALL for values in held):
                continue
            if suspicion := _future(case, reading, aggregate, differ):
                chance = _by_chance(case, reading.values, aggregate.whole, comparable, differ)
                candidate = (chance, -suspicion.effect, suspicion)
                best[name] = min(best.get(name, candidate), candidate, key=lambda explained: explained[:2])
    return {name: suspicion for name, (chance, _, suspicion) in best.items() if chance * trials <= ALPHA}


def _encodings(case: Case) -> Iterator[Suspicion | Untested]:
    """The label's mean over all rows of a category or of the entity, the row itself included."""
    groups: dict[str, Ints] = {
        name: reading.codes for name, reading in case.readings.items() if reading.kind == "category"
    }
    if case.sample.entity is not None and case.spread >= 1.5:
        groups[case.sample.entity] = case.entities
    numbers = [reading for reading in case.readings.values() if reading.kind == "number" and reading.values is not None]
    if not numbers or not groups:
        return
    # some rows of all columns at once: with thousands of columns there are millions of pairs
    probe = np.linspace(0, case.rows - 1, min(case.rows, 50)).astype(np.int64)
    table = np.stack([reading.values[probe] for reading in numbers if reading.values is not None])
    for title, codes in groups.items():
        sizes = np.bincount(codes)
        sums = np.bincount(codes, weights=case.label)
        if len(sizes) < 4 or not (0 < case.label.sum() < case.rows):
            continue
        mean = (sums / np.maximum(sizes, 1))[codes]
        without_own = (sums[codes] - case.label) / np.maximum(sizes[codes] - 1, 1)
        differ = ~are_close(mean, without_own) & (sizes[codes] > 1)
        alike = are_close(table, mean[probe]).mean(axis=1) >= NEARLY_ALL * 0.9
        for place in np.flatnonzero(alike).tolist():
            encoding = Aggregate(f"the label's mean by {title}", mean, without_own)
            if suspicion := _future(case, numbers[place], encoding, differ, _ENCODED):
                yield suspicion


def _future(
    case: Case, reading: Reading, aggregate: Aggregate, differ: Bools, titles: tuple[str, str] = _LOGGED
) -> Suspicion | None:
    """A column that equals an aggregate over all rows, and not over those by the prediction, where the two `differ`.

    `titles`: the rows that the aggregate is over, and those that it should be over.
    """
    every, honest = titles
    assert reading.values is not None
    comparable = differ & ~np.isnan(reading.values)
    whole = are_close(reading.values, aggregate.whole) & comparable
    by_prediction = are_close(reading.values, aggregate.by_prediction) & comparable
    rows = int(comparable.sum())
    if not rows or len(np.unique(case.entities[comparable])) < FEWEST:
        return None
    share = whole.sum() / rows
    if share < NEARLY_ALL or by_prediction.sum() / rows > NEARLY_NONE:
        return None
    return Suspicion(
        reading.name,
        "critical",
        "future_in_aggregate",
        round(float(share), 5),
        None,
        f"In {whole.sum()} of the {rows} rows in which it matters ({share:.1%} of rows) it equals {aggregate.title} "
        f"over {every}, and in {by_prediction.sum()} over {honest}.",
        case.examples(
            reading.name, whole, **{"over all rows": aggregate.whole, "up to the prediction": aggregate.by_prediction}
        ),
        shares_plot(titles, [whole, by_prediction], rows),
    )


def _by_chance(case: Case, values: Floats, whole: Floats, comparable: Bools, differ: Bools) -> float:
    """The chance that a column agrees with an aggregate as often as it does if it has nothing to do with it.

    Each entity agrees with the probability that a value of the column, drawn from all rows that have the aggregate,
    equals one of the aggregate's. A column that is nearly always 0 agrees with whatever ends at 0. Rows of one entity
    are alike, so that entities are counted, with the share of the rows.
    """
    from scipy.stats import binom  # 0.3 s, and few samples come here

    of_column, column_counts = np.unique(values[comparable & ~np.isnan(values)], return_counts=True)
    of_aggregate, aggregate_counts = np.unique(whole[differ], return_counts=True)
    _, first, second = np.intersect1d(of_column, of_aggregate, assume_unique=True, return_indices=True)
    alike = float((column_counts[first] / column_counts.sum()) @ (aggregate_counts[second] / aggregate_counts.sum()))
    entities = len(np.unique(case.entities[differ]))
    agreeing = int(are_close(values, whole)[differ].mean() * entities)
    return float(binom.sf(agreeing - 1, entities, min(alike, 1.0)))


def _since_last(case: Case, reading: Reading, log: EntityLog) -> Suspicion | None:
    """The time since the entity's last row, in whole units, from the prediction or from one moment for all."""
    values = reading.values
    assert values is not None and case.prediction is not None
    if reading.kind != "number":
        return None
    for words, rows in filters(log):
        last = running(log, "", carried(log, np.where(rows, log.at, np.nan)))
        differ = ~are_equal(last.whole, last.by_prediction) & ~np.isnan(values) & ~np.isnan(last.whole)
        if len(np.unique(case.entities[differ])) < FEWEST:
            continue
        for unit, size in SIZES.items():
            for title, origin in (("one moment for all rows", 0.0), ("the prediction", case.prediction)):
                whole, by_prediction = (
                    _reaches(values * size, ends, origin, size, differ) for ends in (last.whole, last.by_prediction)
                )
                count = int(differ.sum())
                share = whole.sum() / count
                if share < NEARLY_ALL or by_prediction.sum() / count > 0.5:
                    continue
                # where one value for all rows would do as well, the lag is the same and the column says nothing of it
                usual = np.full(len(values), np.nanmedian(values))
                if _reaches(usual * size, last.whole, origin, size, differ).sum() / count > 0.5:
                    continue
                return Suspicion(
                    reading.name,
                    "critical",
                    "future_in_aggregate",
                    round(float(share), 5),
                    None,
                    f"In {whole.sum()} of the {count} rows in which it matters ({share:.1%} of rows) it is the time, "
                    f"in {unit}, from the entity's last row in the log{words} to {title}; from the last up to the "
                    f"prediction, in {by_prediction.sum()}.",
                    case.examples(
                        reading.name, whole, last_row_time=last.whole, last_row_by_prediction_time=last.by_prediction
                    ),
                    shares_plot(
                        ["the last row of all", "the last up to the prediction"], [whole, by_prediction], count
                    ),
                )
    return None


def _reaches(seconds: Floats, ends: Floats, origin: Floats | float, size: float, differ: Bools) -> Bools:
    """n rows in which `ends` and so many `seconds` come to the same time from the `origin`, but for a unit's `size`."""
    start = seconds + ends - origin
    there = differ & ~np.isnan(start)
    middle = float(np.median(start[there])) if there.any() else np.nan
    reaches: Bools = there & (np.abs(start - middle) <= size)
    return reaches


def _overwritten(case: Case, log: EntityLog) -> Iterator[Suspicion | Untested]:
    """A feature that holds what its log column says in the end, where that one only ever changes after the outcome."""
    outcome = first_outcome(case)
    if outcome is None:
        why = "No label time was given: when the outcome happened."
        yield Untested("*", "changes_only_after_outcome", why, "label_time")
        return
    case.looked_for.add("changes_only_after_outcome")
    outcome_of_row = _along_log(log, outcome)
    for name, reading in case.readings.items():
        if name not in log.columns:
            continue
        column = log.columns[name]
        history, values = (part.raw.astype(str).to_numpy(dtype=object) for part in (column, reading))
        if column.values is not None and reading.values is not None:
            history, values = column.values, reading.values
        end, past = (np.maximum(until - 1, 0) for until in (log.end, log.past))
        differ = (log.past > log.begin) & ~are_equal(history[end], history[past])
        changed = np.zeros(len(history), dtype=bool)
        changed[1:] = ~are_equal(history[1:], history[:-1]) & (log.entity[1:] == log.entity[:-1])
        changed &= ~np.isnan(outcome_of_row)
        late = changed & (log.at >= outcome_of_row)
        entities = len(np.unique(log.entity[changed]))
        if entities < FEWEST or late.sum() < 0.95 * changed.sum():
            continue
        shows = differ & are_equal(values, history[end])
        if shows.sum() < FEWEST or shows.sum() < NEARLY_ALL * differ.sum():
            continue
        share = late.sum() / changed.sum()
        low, high = proportion_interval(share * entities, entities, ALPHA / len(case.readings))
        yield Suspicion(
            name,
            "critical",
            "changes_only_after_outcome",
            round(float(share), 5),
            (round(low, 5), round(high, 5)),
            f"{late.sum()} of its {changed.sum()} changes in the log ({share:.1%} of changes; {low:.1%} to {high:.1%}) "
            f"come after the outcome, and in {shows.sum()} of {differ.sum()} rows the feature holds the value from "
            f"after it.",
            case.examples(name, shows, outcome_time=outcome),
            shares_plot(["changes after the outcome", "before"], [late, changed & ~late], int(changed.sum())),
        )


def _along_log(log: EntityLog, outcome: Floats) -> Floats:
    """Outcomes of the n rows of the case, for the m rows of the log: each entity's own; NaN where it has none."""
    moments = np.full(len(log.at), np.nan)
    frame = pd.DataFrame({"begin": log.begin, "end": log.end, "moment": outcome}).drop_duplicates("begin")
    frame = frame[frame["end"] > frame["begin"]]
    for begin, end, moment in zip(
        frame["begin"].tolist(), frame["end"].tolist(), frame["moment"].tolist(), strict=True
    ):
        moments[begin:end] = moment
    return moments
