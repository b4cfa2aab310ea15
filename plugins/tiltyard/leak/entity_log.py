"""The log of a sample's entities: what it says of each by the prediction, and what it says in the end. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.case import FEWEST, Case
from tiltyard.leak.reading import Reading, as_instants, read

LEVELS = 3
"""Log columns of at most so many values are taken as filters, too: the sum over what is not a return."""

GRAINS_US = (1_000_000, 1_000)
"""How coarsely instants may be written, in microseconds: to the second, to the millisecond."""


@dataclass(frozen=True)
class EntityLog:
    """The m rows of the log that are about the n rows of a case, in order of entity and time.

    Row i of the case sees log rows [begin[i], past[i]) by its prediction, and [begin[i], end[i]) in the end.
    """

    entity: Ints
    """m codes of entities, ascending."""
    at: Floats
    """m instants, seconds since 1970, ascending within an entity: when a row was known."""
    columns: Mapping[str, Reading]
    """Every other column that holds something: name → m values."""
    begin: Ints
    """n places in the log."""
    past: Ints
    """n places in the log."""
    end: Ints
    """n places in the log."""

    @cached_property
    def starts(self) -> Ints:
        """The place of the entity's first row, for every row of the log."""
        first: Ints = np.searchsorted(self.entity, self.entity, side="left").astype(np.int64)
        return first


@dataclass(frozen=True)
class Aggregate:
    """A value per row of the case, over all log rows of its entity and over those known by its prediction."""

    title: str
    """What it is, in words."""
    whole: Floats
    """n values over all rows; NaN where there is none."""
    by_prediction: Floats
    """n values over the rows known by the prediction; NaN where there is none."""


def read_log(case: Case) -> EntityLog | str:
    """The log, or why there is none to speak of."""
    sample = case.sample
    if sample.history is None or sample.entity is None:
        return "No log of the entities was given."
    if case.prediction is None:
        return "No prediction time was given."
    names = list(sample.history.columns)
    if sample.entity not in names or sample.history_as_of not in names:
        shown = ", ".join(map(str, names))
        return f"The log needs the columns {sample.entity} and {sample.history_as_of}; it has {shown}."
    moments = as_instants(read(sample.history_as_of, sample.history[sample.history_as_of]))
    if moments is None:
        return f"The log's {sample.history_as_of} does not hold instants."
    own = pd.Series(case.frame[sample.entity]).astype(str)
    names_of_entities = pd.Index(own.unique())
    entity = names_of_entities.get_indexer(pd.Index(sample.history[sample.entity].astype(str)))
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
    case_entity = names_of_entities.get_indexer(pd.Index(own)).astype(np.int64)
    begin = np.searchsorted(codes, case_entity, side="left")
    end = np.searchsorted(codes, case_entity, side="right")
    at_rank, known_rank = _ranks(at, case.prediction)
    span = len(at) + len(known_rank) + 1  # entity and time as one number: an entity after the other
    past = np.searchsorted(codes * span + at_rank, case_entity * span + known_rank, side="right")
    return EntityLog(codes, at, columns, begin, np.clip(past, begin, end), end)


def _ranks(at: Floats, prediction: Floats) -> tuple[Ints, Ints]:
    """The places of the log's times and of the predictions' among all of them, from 0 on; -1 for a prediction that has
    no time. Equal instants have equal places, whatever their fractions of a second.

    Who writes the predictions to the second or to the millisecond, and the log more finely, has cut the predictions'
    times: then a row of the log is compared as finely as they are, or a row would not be known at its own time.
    """
    told = ~np.isnan(prediction)
    log_us, known_us = (np.round(np.nan_to_num(times) * 1e6).astype(np.int64) for times in (at, prediction))
    grain = next((size for size in GRAINS_US if not (known_us[told] % size).any()), 1)
    _, places = np.unique(np.concatenate([log_us, known_us[told]]) // grain, return_inverse=True)
    known = np.full(len(prediction), -1, dtype=np.int64)
    known[told] = places[len(at) :]
    return places[: len(at)].astype(np.int64), known


def filters(log: EntityLog) -> list[tuple[str, Bools]]:
    """(words, rows): all rows, and those that hold one value of a column that has few."""
    choices = [("", np.ones(len(log.at), dtype=bool))]
    for name, reading in log.columns.items():
        levels = [code for code in range(1, len(reading.labels)) if (reading.codes == code).any()]
        if 2 <= len(levels) <= LEVELS:
            choices += [(f" where {name} is {reading.labels[code]}", reading.codes == code) for code in levels]
    return choices


def every_aggregate(log: EntityLog) -> Iterator[Aggregate]:
    """Count, sum, mean, number of different values, greatest, least and last of every column, by every filter."""
    for words, rows in filters(log):
        yield _summed(log, f"the number of rows{words}", rows.astype(np.float64), None)
        for name, reading in log.columns.items():
            if reading.values is None:
                continue
            here = rows & ~np.isnan(reading.values)
            if not here.any() or np.ptp(reading.values[here]) == 0:
                continue  # of one value alone, like that of the filter itself, they only say whether there is a row
            values = np.where(here, reading.values, 0.0)
            if reading.kind == "number":
                yield _summed(log, f"the sum of {name}{words}", values, None)
                yield _summed(log, f"the mean of {name}{words}", values, here.astype(np.float64))
            pairs = pd.DataFrame({"entity": log.entity, "value": np.where(here, reading.values, np.nan)})
            fresh = here & ~pairs.duplicated().to_numpy(dtype=bool)
            yield _summed(log, f"the number of different {name}{words}", fresh.astype(np.float64), None)
            masked = np.where(here, reading.values, np.nan)
            for word, accumulate in (("greatest", _greatest), ("least", _least), ("last", carried)):
                yield running(log, f"the {word} {name}{words}", accumulate(log, masked))
    yield running(log, "the last row's time", log.at)


def carried(log: EntityLog, values: Floats) -> Floats:
    """m values of the log's rows, where there is none the entity's last one before."""
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    filled: Floats = np.where(last >= log.starts, values[last], np.nan)
    return filled


def _greatest(log: EntityLog, values: Floats) -> Floats:
    """The entity's greatest value so far. Ranks, an entity's above those of all entities before it, only have to be
    accumulated once."""
    distinct, rank = np.unique(values, return_inverse=True)
    floor = log.entity * (len(distinct) + 1)
    reached = np.maximum.accumulate(np.where(np.isnan(values), floor, floor + rank + 1)) - floor
    greatest: Floats = np.where(reached > 0, distinct[reached - 1], np.nan)
    return greatest


def _least(log: EntityLog, values: Floats) -> Floats:
    return -_greatest(log, -values)


def _summed(log: EntityLog, title: str, values: Floats, over: Floats | None) -> Aggregate:
    """Sums of m values of the log's rows; divided by the sums of `over`, where it is given."""

    def between(numbers: Floats, until: Ints) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(numbers)])
        part: Floats = total[until] - total[log.begin]
        return part

    whole, by_prediction = between(values, log.end), between(values, log.past)
    if over is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            whole, by_prediction = whole / between(over, log.end), by_prediction / between(over, log.past)
    return Aggregate(title, whole, by_prediction)


def running(log: EntityLog, title: str, values: Floats) -> Aggregate:
    """Of m values, accumulated along each entity's rows, the last one of all and the last one by the prediction."""
    ends = [np.where(until > log.begin, values[np.maximum(until - 1, 0)], np.nan) for until in (log.end, log.past)]
    return Aggregate(title, ends[0], ends[1])
