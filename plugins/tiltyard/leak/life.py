"""Evidence from an entity's life, as the rows of the frame itself tell it: columns that know how it ends. Pure."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiltyard.leak.arrays import Bools, Floats, Ints
from tiltyard.leak.case import ALPHA, FEWEST, Case
from tiltyard.leak.intervals import proportion_interval
from tiltyard.leak.suspicion import Rates, Suspicion, Untested, Want

NEARLY_NONE = 0.1
"""Share of the rows, or of the entities, in which the honest explanation holds at most: what holds there by chance."""
ROWS_PER_ENTITY = 1.5
"""Mean rows per entity from which on a frame shows lives; below it most entities stand in one row."""
STEADY = 0.999
"""Share of an entity's steps from row to row in which a constant column stays as it is: the rest is mended data."""
REACHED = 0.2
"""Share of the entities that end at the value that they had from the start; by chance it is a fifth of that at most.
Not all do: the life of many goes on after their last row."""


def constants(case: Case) -> Iterator[Suspicion | Untested]:
    """A column that is the same in all rows of an entity, and from the first of them equals what another column comes
    to in the last: filled in backwards, from the end of the life.

    Taken are the entities in whose life the other column changes. Equal by chance is what the constant of another
    entity shows.
    """
    if case.sample.entity is None or case.spread < ROWS_PER_ENTITY or case.prediction is None:
        yield Untested("*", "constant_over_life", *_one_row_each(case))
        return
    order = np.lexsort((case.prediction, case.entities))
    entity = case.entities[order]
    starts = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]])
    first, last = order[starts], order[np.r_[starts[1:], len(entity)] - 1]
    steady: dict[str, Floats] = {}
    moving: dict[str, Floats] = {}
    for name, reading in case.readings.items():
        if reading.kind == "number" and reading.values is not None:
            in_order = reading.values[order]
            same = are_equal(in_order[1:], in_order[:-1]) | (entity[1:] != entity[:-1])
            (steady if same.mean() > STEADY else moving)[name] = reading.values
    rng = np.random.default_rng(0)
    for name, constant in steady.items():
        if len(np.unique(constant[first][~np.isnan(constant[first])])) < 10:
            continue
        for twin, values in moving.items():
            suspicion = _filled_backwards(case, (name, constant), (twin, values), (first, last), rng)
            if suspicion:
                yield suspicion
                break


def _filled_backwards(
    case: Case,
    column: tuple[str, Floats],
    twin: tuple[str, Floats],
    ends: tuple[Ints, Ints],
    rng: np.random.Generator,
) -> Suspicion | None:
    """A constant column that equals, from an entity's first row on, what its twin comes to in the last.

    `column`, `twin`: name and n values. `ends`: the rows of the case that are each entity's first and last.
    """
    (name, constant), (twin_name, values), (first, last) = column, twin, ends
    at_start = constant[first]
    changed = ~are_close(values[first], values[last]) & ~np.isnan(at_start) & ~np.isnan(values[last])
    count = int(changed.sum())
    if count < FEWEST:
        return None
    chance = are_close(rng.permutation(at_start[changed]), values[last][changed]).mean()
    ending = are_close(at_start, values[last]) & changed
    beginning = are_close(at_start, values[first]) & changed
    low, high = proportion_interval(float(ending.sum()), float(count), ALPHA / len(case.readings))
    if low < REACHED or low < 5 * chance or beginning.sum() > NEARLY_NONE * ending.sum():
        return None
    share = ending.sum() / count
    shown = np.zeros(case.rows, dtype=bool)
    shown[first[ending]] = True
    reached = np.full(case.rows, np.nan)
    reached[first] = values[last]
    return Suspicion(
        name,
        "critical",
        "constant_over_life",
        round(float(share), 5),
        (round(low, 5), round(high, 5)),
        f"It never changes in an entity's life, and from the first row on equals what {twin_name} comes to in the "
        f"last: for {ending.sum()} of the {count} entities in whose rows {twin_name} changes "
        f"({share:.1%} of entities; {low:.1%} to {high:.1%}), {chance:.1%} by chance; "
        f"what {twin_name} was in the first row it equals for {beginning.sum()}.",
        case.examples(name, shown, **{f"{twin_name} in that row": values, f"{twin_name} in the last row": reached}),
        shares_plot(["its last", "its first"], [ending, beginning], count),
    )


def changes(case: Case) -> Iterator[Suspicion | Untested]:
    """A column that changes in an entity's rows only once the outcome has come, in a frame that goes on after it."""
    outcome = first_outcome(case)
    has_lives = case.sample.entity is not None and case.spread >= ROWS_PER_ENTITY
    if outcome is None or case.prediction is None or not has_lives:
        if "changes_only_after_outcome" not in case.looked_for:  # it was, where there is a log
            yield Untested("*", "changes_only_after_outcome", *_one_row_each(case))
        return
    if case.sample.history is None:
        why = "No log of the entities was given; only the table's own rows were looked at."
        yield Untested("*", "changes_only_after_outcome", why, "history")
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
        changed = step & np.r_[False, ~are_equal(codes[1:], codes[:-1])]
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
        yield Suspicion(
            name,
            "critical",
            "changes_only_after_outcome",
            round(float(share), 5),
            (round(low, 5), round(high, 5)),
            f"{late.sum()} of its {changed.sum()} changes ({share:.1%} of changes; {low:.1%} to {high:.1%}) come after "
            f"the outcome, where {usual:.1%} of the rows lie.",
            case.examples(name, shown, outcome_time=outcome),
            shares_plot(["changes after the outcome", "before"], [late, changed & ~late], int(changed.sum())),
        )


def _one_row_each(case: Case) -> tuple[str, Want]:
    """Why an entity's life cannot be followed through the rows of the frame, and what would be needed for it."""
    if case.sample.entity is None:
        return "No entity was given: whom a row is about.", "entity"
    return "There is one row per entity; a life takes several.", "rows_per_entity"


def first_outcome(case: Case) -> Floats | None:
    """n instants: of each row the first positive outcome of its entity, NaN where that has none; None without any."""
    if case.outcome is None:
        return None
    when_positive = pd.Series(np.where(case.label, case.outcome, np.nan))
    first: Floats = when_positive.groupby(case.entities).transform("min").to_numpy(dtype=np.float64)
    return first


def are_close(values: Floats, references: Floats) -> Bools:
    """Equal but for rounding, a millionth of the reference; False where either is missing."""
    close: Bools = np.abs(values - references) <= 1e-6 * np.maximum(np.abs(references), 1.0)
    return close


def are_equal(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> Bools:
    """The same value, or missing in both."""
    equal = first == second
    if np.issubdtype(first.dtype, np.floating):
        equal |= np.isnan(first.astype(np.float64)) & np.isnan(second.astype(np.float64))
    return np.asarray(equal, dtype=bool)


def shares_plot(titles: Sequence[str], parts: Sequence[Bools], rows: int) -> Rates:
    """The plot of explanations, by the share of `rows` in which each holds."""
    return Rates(
        x=tuple(titles),
        rate=tuple(round(float(part.sum() / rows), 5) for part in parts),
        rows=tuple(int(part.sum()) for part in parts),
        base=0.0,
        xlabel="the aggregate over",
        title="share of rows that equal it",
    )
