"""What a policy was worth, in hindsight: losses, days behind, retrains for nothing. Pure.

Everything here looks at the last truth that came, which no policy saw. Rows are those of one model's nights; what is
served on a night is a version's number, or None for the safe default. Versions are told apart by the night they were
trained on: under every policy the same training is the same version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEEK = 7
"""Nights of a block: what is best on a single day is mostly luck."""
TELLS = 2.0
"""Standard errors, clustered by night, from which one line counts as worse than another over a block."""
FEWEST = 100
"""Rows with truth below which nothing is said of a retrain."""
LOOKED_AT = timedelta(days=28)
"""Nights after a training over which its version is held against the one that it was to replace."""


@dataclass(frozen=True)
class Lines:
    """Losses per row in [0, 1], NaN without truth: of each version by its training night, and of the safe default."""

    night: Ints
    versions: Mapping[date, Floats]
    default: Floats

    def of(self, trained: date | None) -> Floats:
        """The losses of the version that was trained on that night; None: of the safe default."""
        return self.default if trained is None else self.versions[trained]


def served(lines: Lines, champions: Mapping[date, date | None]) -> Floats:
    """Losses of what was served. `champions`: night → training night of the champion in force; None: the safe default.

    A night that is not in `champions` made no predictions, and a row that the champion did not score got the default.
    """
    loss = np.full(len(lines.night), np.nan)
    for night, trained in champions.items():
        inside = slice(*np.searchsorted(lines.night, [night.toordinal(), night.toordinal() + 1]))
        own = lines.of(trained)[inside]
        loss[inside] = np.where(np.isnan(own), lines.default[inside], own)
    return loss


def always_newest(nights: Sequence[date], trained: Sequence[date]) -> dict[date, date | None]:
    """Champions of somebody who promotes every version on the night after its training."""
    ordered = sorted(trained)
    return {night: next((day for day in reversed(ordered) if day < night), None) for night in nights}


def blocks(night: Ints) -> Ints:
    """The block of `WEEK` nights that every row lies in, counted from the first night."""
    return (night - night[0]) // WEEK if len(night) else night


def oracle(lines: Lines, nights: Sequence[date]) -> dict[date, date | None]:
    """Per night the version, or the default, of those that existed before it, that turned out best over its block."""
    chosen: dict[date, date | None] = {}
    if not len(lines.night):
        return chosen
    first, number = int(lines.night[0]), blocks(lines.night)
    ranked: dict[int, list[date | None]] = {}
    for block in np.unique(number):
        inside = number == block
        mean = {trained: _mean(lines.of(trained)[inside]) for trained in (None, *sorted(lines.versions))}
        ranked[int(block)] = sorted(mean, key=mean.__getitem__)
    for night in nights:
        best = ranked.get((night.toordinal() - first) // WEEK, [None])
        chosen[night] = next(trained for trained in best if trained is None or trained < night)
    return chosen


def days_behind(lines: Lines, loss: Floats, best: Floats) -> int:
    """Nights in blocks over which `loss` was worse than `best` beyond chance (a z test clustered by night)."""
    days = 0
    number = blocks(lines.night)
    for block in np.unique(number):
        inside = (number == block) & np.isfinite(loss) & np.isfinite(best)
        if not inside.any():
            continue
        nights, place = np.unique(lines.night[inside], return_inverse=True)
        gap = loss[inside] - best[inside]
        sums = np.bincount(place, weights=gap - gap.mean())
        groups = len(nights)
        if groups < 2:
            continue
        error = float(np.sqrt((sums**2).sum() * groups / (groups - 1))) / len(gap)
        if gap.mean() > 0 and gap.mean() > TELLS * error:
            days += groups
    return days


def is_false(lines: Lines, trained: date, in_service: date | None) -> bool | None:
    """Was the training for nothing? Its version was no better than what served, on the rows of the next four weeks.

    None where too few rows have a truth.
    """
    begin, end = trained.toordinal(), (trained + LOOKED_AT).toordinal()
    inside = slice(*np.searchsorted(lines.night, [begin + 1, end + 1]))
    new, old = lines.of(trained)[inside], lines.of(in_service)[inside]
    both = np.isfinite(new) & np.isfinite(old)
    if both.sum() < FEWEST:
        return None
    return bool(new[both].mean() >= old[both].mean())


def weekly(lines: Lines, loss: Floats) -> list[tuple[date, float, int]]:
    """(first night of the block, mean loss, rows with truth), for drawing."""
    weeks = []
    number = blocks(lines.night)
    for block in np.unique(number):
        inside = (number == block) & np.isfinite(loss)
        if inside.any():
            start = date.fromordinal(int(lines.night[0]) + int(block) * WEEK)
            weeks.append((start, float(loss[inside].mean()), int(inside.sum())))
    return weeks


def _mean(loss: Floats) -> float:
    finite = loss[np.isfinite(loss)]
    return float(finite.mean()) if len(finite) else np.inf
