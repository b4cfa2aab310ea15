"""Evidence from an entity's life: what its log says by the prediction, and what it says in the end. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tiltyard.leak.case import ALPHA, FEWEST, Case, Finding, Untested, Want
from tiltyard.leak.intervals import proportion_interval
from tiltyard.leak.reading import Bools, Floats, Ints, Reading, as_instants, read

NEARLY_ALL = 0.9
"""Share of the rows that tell two explanations apart in which one of them has to hold: the rest is rounding, a filter
on a handful of rows, a log that is a day younger than the table."""
NEARLY_NONE = 0.1
LEVELS = 3
"""Log columns of at most so many values are taken as filters, too: the sum over what is not a return."""
PROBED = 3_000
"""Rows on which an aggregate is tried first; only what holds there is computed on all."""
REACHED = 0.2
"""Share of the entities that end at the value that they had from the start; by chance it is a fifth of that at most.
Not all do: the life of many goes on after their last row."""
SIZES = {"seconds": 1.0, "minutes": 60.0, "hours": 3_600.0, "days": 86_400.0}


@dataclass(frozen=True)
class _Log:
    """The log in order of entity and time. A case's row i sees log rows [begin, past) by its prediction, [begin, end)
    in the end."""

    entity: Ints
    at: Floats
    columns: Mapping[str, Reading]
    begin: Ints
    past: Ints
    end: Ints

    @cached_property
    def starts(self) -> Ints:
        """The place of the entity's first row, for every row of the log."""
        first: Ints = np.searchsorted(self.entity, self.entity, side="left").astype(np.int64)
        return first


@dataclass(frozen=True)
class _Aggregate:
    """A value per row of the case, over all log rows of its entity and over those known by its prediction."""

    title: str
    whole: Floats
    known: Floats


def aggregates(case: Case) -> Iterator[Finding | Untested]:
    """A feature that equals an aggregate over all of its entity's rows, and not over those up to the prediction, where
    the two differ. Exact: it counts rows. Tried are count, sum, mean, maximum, minimum, last and number of different
    values of each column of the log, of all rows and of those that hold one value of a column that has few; the time
    since the last row; and, from the frame itself, the label's own mean, by entity and by category (a target encoding
    that has seen the row's own label).
    """
    yield from _encodings(case)
    log = _read_log(case)
    if isinstance(log, str):
        yield Untested("*", "future_in_aggregate", log, "history")
        return
    numbers = {n: r for n, r in case.readings.items() if r.values is not None and len(np.unique(r.values[:PROBED])) > 2}
    best: dict[str, tuple[float, float, Finding]] = {}
    tried = 0
    for aggregate in _numeric(log):
        # without a row up to the prediction there is nothing to compare: what never changes would look like the future
        told = ~np.isnan(aggregate.whole) & ~np.isnan(aggregate.known)
        differ = ~_close(aggregate.whole, aggregate.known) & told & (log.end > log.begin)
        rows = np.flatnonzero(differ)
        if len(np.unique(case.entities[rows])) < FEWEST:
            continue
        probe = rows[:: max(1, len(rows) // PROBED)]
        tried += len(numbers)
        for name, reading in numbers.items():
            assert reading.values is not None
            if _close(reading.values[probe], aggregate.whole[probe]).mean() < NEARLY_ALL * 0.9:
                continue
            if found := _future(case, reading, aggregate, differ):
                chance = _by_chance(case, reading.values, aggregate.whole, told, differ)
                best[name] = min(best.get(name, (2.0, 0.0, found)), (chance, -found.effect, found), key=lambda b: b[:2])
    named = {name: found for name, (chance, _, found) in best.items() if chance * tried <= ALPHA}
    yield from named.values()
    for name, reading in numbers.items():
        if name not in named and (since := _since_last(case, reading, log)):
            yield since
    yield from _overwritten(case, log)


def _read_log(case: Case) -> _Log | str:
    """The log, or why there is none to speak of."""
    sample = case.sample
    if sample.history is None or sample.entity is None:
        return "No log of the entities was given."
    if case.prediction is None:
        return "No prediction time was given."
    names = list(sample.history.columns)
    if sample.entity not in names or sample.history_as_of not in names:
        had = ", ".join(map(str, names))
        return f"The log needs the columns {sample.entity} and {sample.history_as_of}; it has {had}."
    moments = as_instants(read(sample.history_as_of, sample.history[sample.history_as_of]))
    if moments is None:
        return f"The log's {sample.history_as_of} does not hold instants."
    first = pd.Series(case.frame[sample.entity]).astype(str)
    known = pd.Index(first.unique())
    entity = known.get_indexer(pd.Index(sample.history[sample.entity].astype(str)))
    usable = (entity >= 0) & ~np.isnan(moments)
    if usable.sum() < FEWEST:
        return "The log has hardly any row of the sample's entities."
    order = np.flatnonzero(usable)
    order = order[np.lexsort((moments[order], entity[order]))]
    columns = {}
    for name in names:
        if name not in (sample.entity, sample.history_as_of):
            reading = read(name, sample.history[name].iloc[order])
            if reading.kind != "empty":
                columns[name] = reading
    codes, at = entity[order].astype(np.int64), moments[order]
    mine = known.get_indexer(pd.Index(first)).astype(np.int64)
    begin = np.searchsorted(codes, mine, side="left")
    end = np.searchsorted(codes, mine, side="right")
    # entity and time as one number: milliseconds since the log's first row, an entity after the other
    start = float(np.nanmin(at))
    span = round((max(float(np.nanmax(at)), float(np.nanmax(case.prediction))) - start) * 1e3) + 2
    moment = np.clip(np.nan_to_num((case.prediction - start) * 1e3, nan=-1.0), -1.0, span - 1.0)
    keys = codes * span + np.round((at - start) * 1e3).astype(np.int64)
    past = np.searchsorted(keys, mine * span + np.floor(moment).astype(np.int64), side="right")
    return _Log(codes, at, columns, begin, np.clip(past, begin, end), end)


def _filters(log: _Log) -> list[tuple[str, Bools]]:
    """(words, rows): all rows, and those that hold one value of a column that has few."""
    filters = [("", np.ones(len(log.at), dtype=bool))]
    for name, reading in log.columns.items():
        levels = [code for code in range(1, len(reading.labels)) if (reading.codes == code).any()]
        if 2 <= len(levels) <= LEVELS:
            filters += [(f" where {name} is {reading.labels[code]}", reading.codes == code) for code in levels]
    return filters


def _numeric(log: _Log) -> Iterator[_Aggregate]:
    for words, rows in _filters(log):
        yield _sums(log, f"the number of rows{words}", rows.astype(np.float64), None)
        for name, reading in log.columns.items():
            if reading.values is None:
                continue
            here = rows & ~np.isnan(reading.values)
            if not here.any():
                continue
            values = np.where(here, reading.values, 0.0)
            if reading.kind == "number":
                yield _sums(log, f"the sum of {name}{words}", values, None)
                yield _sums(log, f"the mean of {name}{words}", values, here.astype(np.float64))
            seen = pd.DataFrame({"entity": log.entity, "value": np.where(here, reading.values, np.nan)}).duplicated()
            fresh = here & ~seen.to_numpy(dtype=bool)
            yield _sums(log, f"the number of different {name}{words}", fresh.astype(np.float64), None)
            masked = np.where(here, reading.values, np.nan)
            for word, run in (("greatest", _greatest), ("least", _least), ("last", _carried)):
                yield _running(log, f"the {word} {name}{words}", run(log, masked))
    yield _running(log, "the last row's time", log.at)


def _carried(log: _Log, values: Floats) -> Floats:
    """Where there is no value, the entity's last one before."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    carried: Floats = np.where(last >= log.starts, values[last], np.nan)
    return carried


def _greatest(log: _Log, values: Floats) -> Floats:
    """The entity's greatest value so far. Ranks, an entity's above those of all entities before it, only have to be
    accumulated once."""
    distinct, rank = np.unique(values, return_inverse=True)
    floor = log.entity * (len(distinct) + 1)
    reached = np.maximum.accumulate(np.where(np.isnan(values), floor, floor + rank + 1)) - floor
    greatest: Floats = np.where(reached > 0, distinct[reached - 1], np.nan)
    return greatest


def _least(log: _Log, values: Floats) -> Floats:
    return -_greatest(log, -values)


def _sums(log: _Log, title: str, values: Floats, over: Floats | None) -> _Aggregate:
    def between(numbers: Floats, until: Ints) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(numbers)])
        part: Floats = total[until] - total[log.begin]
        return part

    whole, known = between(values, log.end), between(values, log.past)
    if over is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            whole, known = whole / between(over, log.end), known / between(over, log.past)
    return _Aggregate(title, whole, known)


def _running(log: _Log, title: str, values: Floats) -> _Aggregate:
    ends = [np.where(until > log.begin, values[np.maximum(until - 1, 0)], np.nan) for until in (log.end, log.past)]
    return _Aggregate(title, ends[0], ends[1])


def _close(a: Floats, b: Floats) -> Bools:
    same: Bools = np.abs(a - b) <= 1e-6 * np.maximum(np.abs(b), 1.0)
    return same


def _future(case: Case, reading: Reading, aggregate: _Aggregate, differ: Bools) -> Finding | None:
    assert reading.values is not None
    told = differ & ~np.isnan(reading.values)
    whole, known = _close(reading.values, aggregate.whole) & told, _close(reading.values, aggregate.known) & told
    judged = int(told.sum())
    if not judged or len(np.unique(case.entities[told])) < FEWEST:
        return None
    shares = whole.sum() / judged, known.sum() / judged
    if shares[0] < NEARLY_ALL or shares[1] > NEARLY_NONE:
        return None
    return Finding(
        reading.name,
        "critical",
        "future_in_aggregate",
        round(float(shares[0]), 5),
        None,
        f"In {whole.sum()} of the {judged} rows in which it matters ({shares[0]:.1%} of rows) it equals "
        f"{aggregate.title} over all of the entity's rows, and in {known.sum()} over those up to the prediction.",
        case.examples(
            reading.name, whole, **{"over all rows": aggregate.whole, "up to the prediction": aggregate.known}
        ),
        _shares_plot(["all of the entity's rows", "those up to the prediction"], [whole, known], judged),
    )


def _by_chance(case: Case, values: Floats, whole: Floats, told: Bools, differ: Bools) -> float:
    """The chance that a column agrees with an aggregate as often as it does if it has nothing to do with it: each
    entity agrees with the probability that a value of the column, drawn from all rows that have the aggregate, equals
    one of the aggregate's. A column that is nearly always 0 agrees with whatever ends at 0. Rows of one entity are
    alike, so that entities are counted, with the share of the rows.
    """
    from scipy.stats import binom  # type: ignore[import-untyped]

    mine, mine_counts = np.unique(values[told & ~np.isnan(values)], return_counts=True)
    theirs, their_counts = np.unique(whole[differ], return_counts=True)
    _, place, other = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    alike = float((mine_counts[place] / mine_counts.sum()) @ (their_counts[other] / their_counts.sum()))
    entities = len(np.unique(case.entities[differ]))
    agreeing = int(_close(values, whole)[differ].mean() * entities)
    return float(binom.sf(agreeing - 1, entities, min(alike, 1.0)))


def _shares_plot(titles: Sequence[str], parts: Sequence[Bools], judged: int) -> Mapping[str, Any]:
    return {
        "shape": "rates",
        "title": "share of rows that equal it",
        "x": list(titles),
        "rate": [round(float(part.sum() / judged), 5) for part in parts],
        "rows": [int(part.sum()) for part in parts],
        "base": 0.0,
        "xlabel": "the aggregate over",
    }


def _since_last(case: Case, reading: Reading, log: _Log) -> Finding | None:
    """The time since the entity's last row, in whole units, from the prediction or from one moment for all."""
    values = reading.values
    assert values is not None and case.prediction is not None
    if reading.kind != "number":
        return None
    for words, rows in _filters(log):
        last = _running(log, "", _carried(log, np.where(rows, log.at, np.nan)))
        differ = ~_equal(last.whole, last.known) & ~np.isnan(values) & ~np.isnan(last.whole)
        if len(np.unique(case.entities[differ])) < FEWEST:
            continue
        for unit, size in SIZES.items():
            for title, origin in (("one moment for all rows", 0.0), ("the prediction", case.prediction)):
                inside = []
                for ends in (last.whole, last.known):
                    start = values * size + ends - origin
                    there = differ & ~np.isnan(start)
                    middle = float(np.median(start[there])) if there.any() else np.nan
                    inside.append(there & (np.abs(start - middle) <= size))
                shares = [part.sum() / differ.sum() for part in inside]
                if shares[0] < NEARLY_ALL or shares[1] > 0.5:
                    continue
                return Finding(
                    reading.name,
                    "critical",
                    "future_in_aggregate",
                    round(float(shares[0]), 5),
                    None,
                    f"In {inside[0].sum()} of the {differ.sum()} rows in which it matters ({shares[0]:.1%} of rows) it "
                    f"is the time, in {unit}, from the entity's last row in the log{words} to {title}; from the last "
                    f"up to the prediction, in {inside[1].sum()}.",
                    case.examples(
                        reading.name, inside[0], last_row_time=last.whole, last_row_by_prediction_time=last.known
                    ),
                    _shares_plot(["the last row of all", "the last up to the prediction"], inside, int(differ.sum())),
                )
    return None


def _overwritten(case: Case, log: _Log) -> Iterator[Finding | Untested]:
    """A feature that holds what its log column says in the end, where that one only ever changes after the outcome."""
    outcome = _first_outcome(case)
    if outcome is None:
        why = "No label time was given: when the outcome happened."
        yield Untested("*", "changes_only_after_outcome", why, "label_time")
        return
    case.looked_for.add("changes_only_after_outcome")
    at_log = np.full(len(log.at), np.nan)
    for begin, end, moment in zip(*_entity_ranges(log, outcome), strict=True):
        at_log[begin:end] = moment
    for name, reading in case.readings.items():
        if name not in log.columns:
            continue
        column = log.columns[name]
        texts, mine = (part.raw.astype(str).to_numpy(dtype=object) for part in (column, reading))
        if column.values is not None and reading.values is not None:
            texts, mine = column.values, reading.values
        ends = [np.maximum(until - 1, 0) for until in (log.end, log.past)]
        there = log.past > log.begin
        differ = there & ~_equal(texts[ends[0]], texts[ends[1]])
        changed = np.zeros(len(texts), dtype=bool)
        changed[1:] = ~_equal(texts[1:], texts[:-1]) & (log.entity[1:] == log.entity[:-1])
        told = changed & ~np.isnan(at_log)
        late = told & (log.at >= at_log)
        entities = len(np.unique(log.entity[told]))
        if entities < FEWEST or late.sum() < 0.95 * told.sum():
            continue
        shows = differ & _equal(mine, texts[ends[0]])
        if shows.sum() < FEWEST or shows.sum() < NEARLY_ALL * differ.sum():
            continue
        low, high = proportion_interval(late.sum() / told.sum() * entities, entities, ALPHA / len(case.readings))
        yield Finding(
            name,
            "critical",
            "changes_only_after_outcome",
            round(float(late.sum() / told.sum()), 5),
            (round(low, 5), round(high, 5)),
            f"{late.sum()} of its {told.sum()} changes in the log ({late.sum() / told.sum():.1%} of changes; {low:.1%} "
            f"to {high:.1%}) come after the outcome, and in {shows.sum()} of {differ.sum()} rows the feature holds the "
            f"value from after it.",
            case.examples(name, shows, outcome_time=outcome),
            _shares_plot(["changes after the outcome", "before"], [late, told & ~late], int(told.sum())),
        )


def _equal(a: Any, b: Any) -> Bools:
    """Same value, or missing in both."""
    same = a == b
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        same |= np.isnan(a) & np.isnan(b)
    return np.asarray(same, dtype=bool)


def _first_outcome(case: Case) -> Floats | None:
    """Per row the instant of its entity's first positive outcome; NaN where it has none."""
    if case.outcome is None:
        return None
    when_positive = pd.Series(np.where(case.label, case.outcome, np.nan))
    first: Floats = when_positive.groupby(case.entities).transform("min").to_numpy(dtype=np.float64)
    return first


def _entity_ranges(log: _Log, outcome: Floats) -> tuple[list[int], list[int], list[float]]:
    frame = pd.DataFrame({"begin": log.begin, "end": log.end, "moment": outcome}).drop_duplicates("begin")
    frame = frame[frame["end"] > frame["begin"]]
    return frame["begin"].tolist(), frame["end"].tolist(), frame["moment"].tolist()


def _encodings(case: Case) -> Iterator[Finding | Untested]:
    """The label's mean over all rows of a category or of the entity, the row itself included."""
    groups: dict[str, Ints] = {n: r.codes for n, r in case.readings.items() if r.kind == "category"}
    if case.sample.entity is not None and case.spread >= 1.5:
        groups["the entity"] = case.entities
    numbers = [r for r in case.readings.values() if r.kind == "number" and r.values is not None]
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
        without = (sums[codes] - case.label) / np.maximum(sizes[codes] - 1, 1)
        told = ~_close(mean, without) & (sizes[codes] > 1)
        for place in np.flatnonzero(_close(table, mean[probe]).mean(axis=1) >= NEARLY_ALL * 0.9).tolist():
            found = _future(case, numbers[place], _Aggregate(f"the label's mean by {title}", mean, without), told)
            if found:
                yield found


def _one_row_each(case: Case) -> tuple[str, Want]:
    """Why an entity's life cannot be followed through the rows of the frame, and what would be needed for it."""
    if case.sample.entity is None:
        return "No entity was given: whom a row is about.", "entity"
    return "There is one row per entity; a life takes several.", "rows_per_entity"


def constants(case: Case) -> Iterator[Finding | Untested]:
    """A column that is the same in all rows of an entity, and from the first of them equals what another column comes
    to in the last: filled in backwards, from the end of the life.

    Taken are the entities in whose life the other column changes. Equal by chance is what the constant of another
    entity shows.
    """
    if case.sample.entity is None or case.spread < 1.5 or case.prediction is None:
        yield Untested("*", "constant_over_life", *_one_row_each(case))
        return
    order = np.lexsort((case.prediction, case.entities))
    entity = case.entities[order]
    starts = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]])
    ends = np.r_[starts[1:], len(entity)] - 1
    first, last = order[starts], order[ends]
    numbers = {n: r.values for n, r in case.readings.items() if r.kind == "number" and r.values is not None}
    steady: dict[str, Floats] = {}
    moving: dict[str, Floats] = {}
    for name, values in numbers.items():
        sorted_values = values[order]
        same = _equal(sorted_values[1:], sorted_values[:-1]) | (entity[1:] != entity[:-1])
        (steady if same.mean() > 0.999 else moving)[name] = values
    rng = np.random.default_rng(0)
    for name, constant in steady.items():
        held = constant[first]
        if len(np.unique(held[~np.isnan(held)])) < 10:
            continue
        for other, values in moving.items():
            changed = ~_close(values[first], values[last]) & ~np.isnan(held) & ~np.isnan(values[last])
            if changed.sum() < FEWEST:
                continue
            chance = _close(rng.permutation(held[changed]), values[last][changed]).mean()
            ending = _close(held, values[last]) & changed
            beginning = _close(held, values[first]) & changed
            low, high = proportion_interval(float(ending.sum()), float(changed.sum()), ALPHA / len(case.readings))
            if low < REACHED or low < 5 * chance or beginning.sum() > NEARLY_NONE * ending.sum():
                continue
            shown = np.zeros(case.rows, dtype=bool)
            shown[first[ending]] = True
            reached = np.full(case.rows, np.nan)
            reached[first] = values[last]
            yield Finding(
                name,
                "critical",
                "constant_over_life",
                round(float(ending.sum() / changed.sum()), 5),
                (round(low, 5), round(high, 5)),
                f"It never changes in an entity's life, and from the first row on equals what {other} comes to in the "
                f"last: for {ending.sum()} of the {changed.sum()} entities in whose rows {other} changes "
                f"({ending.sum() / changed.sum():.1%} of entities; {low:.1%} to {high:.1%}), {chance:.1%} by chance; "
                f"what {other} was in the first row it equals for {beginning.sum()}.",
                case.examples(name, shown, **{f"{other} in that row": values, f"{other} in the last row": reached}),
                _shares_plot(["its last", "its first"], [ending, beginning], int(changed.sum())),
            )
            break


def changes(case: Case) -> Iterator[Finding | Untested]:
    """A column that changes in an entity's rows only once the outcome has come, in a frame that goes on after it."""
    outcome = _first_outcome(case)
    if outcome is None or case.prediction is None or case.sample.entity is None or case.spread < 1.5:
        if "changes_only_after_outcome" not in case.looked_for:  # in the log
            yield Untested("*", "changes_only_after_outcome", *_one_row_each(case))
        return
    after = case.prediction >= outcome
    if len(np.unique(case.entities[after])) < FEWEST:
        if "changes_only_after_outcome" not in case.looked_for:
            why = f"Fewer than {FEWEST} entities have rows after their outcome."
            yield Untested("*", "changes_only_after_outcome", why, "rows_per_entity")
        return
    order = np.lexsort((case.prediction, case.entities))
    entity = case.entities[order]
    step = np.r_[False, entity[1:] == entity[:-1]] & ~np.isnan(outcome[order])
    usual = float(after[order][step].mean())
    for name, reading in case.readings.items():
        codes = reading.values[order] if reading.values is not None else reading.codes[order]
        changed = step & np.r_[False, ~_equal(codes[1:], codes[:-1])]
        late = changed & after[order]
        entities = len(np.unique(entity[changed]))
        if entities < FEWEST:
            continue
        share = late.sum() / changed.sum()
        low, high = proportion_interval(share * entities, entities, ALPHA / len(case.readings))
        if share < 0.99 or low < min(0.9, (1 + usual) / 2) or usual > 0.5:
            continue
        shown = np.zeros(case.rows, dtype=bool)
        shown[order[late]] = True
        yield Finding(
            name,
            "critical",
            "changes_only_after_outcome",
            round(float(share), 5),
            (round(low, 5), round(high, 5)),
            f"{late.sum()} of its {changed.sum()} changes ({share:.1%} of changes; {low:.1%} to {high:.1%}) come after "
            f"the outcome, where {usual:.1%} of the rows lie.",
            case.examples(name, shown, outcome_time=outcome),
            _shares_plot(["changes after the outcome", "before"], [late, changed & ~late], int(changed.sum())),
        )
