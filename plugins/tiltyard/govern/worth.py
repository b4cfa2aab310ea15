"""Keep, simplify or retire: what a model has earned over its safe default and over its light twin. Pure.

On every row with matured truth, what was answered, the safe default and the light twin are priced by the cost of the
errors that each makes. What one saves over the other, less what it costs more to run, has to show in both of the
gate's statistics (`judge.sequential`): on the rows so far, which assumes nothing (Waudby-Smith & Ramdas 2024, Choe &
Ramdas 2023), and over nights, for nights to come (Wang & Ramdas 2025). They may be looked at every night, and each of
the three things that may be said is wrong of a model with probability `alpha` at most. To retire takes two of them,
that neither the model nor its twin earns what it costs.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from tiltyard.judge import sequential
from tiltyard.records import Advice, Gain
from tiltyard.spec import Spec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Earned:
    """What errors have cost on rows with matured truth, by cohort, in money."""

    night: NDArray[np.int64]
    """(rows,) date ordinal of the cohort, never falling."""
    served: Floats
    """(rows,) what the errors of what was answered cost."""
    default: Floats
    """(rows,) what the safe default's would have."""
    light: Floats
    """(rows,) what the light twin's would have; NaN where it was not scored."""
    largest: float
    """The most that an error can cost."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """What it costs to run a model, in money."""

    whole: float = 0.0
    """A night, as it is."""
    light: float = 0.0
    """A night, if its light twin answered alone."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What is to be said of a model."""

    advice: Advice
    """What is advised."""
    since: date | None
    """The cohort since which it has been; None where there is none."""
    over_default: Gain | None
    """What was answered over the safe default."""
    light_over_default: Gain | None
    """The light twin over the safe default."""
    over_light: Gain | None
    """What was answered over the light twin."""


def earned(spec: Spec, night: NDArray[np.int64], score: Floats, light: Floats, label: Floats) -> Earned:
    """`score` and `light`: (rows, *shape), NaN where there is none; `spec`: one with a price on errors."""
    default = spec.target.constant(spec.fallback.safe_default, len(label))
    return Earned(
        night=night,
        served=paid(spec, score, label),
        default=paid(spec, default, label),
        light=paid(spec, light, label),
        largest=_largest(spec),
    )


def paid(spec: Spec, score: Floats, label: Floats) -> Floats:
    """(rows,) what each row's error costs; NaN where there is no score."""
    gate, is_scored = spec.gate, spec.target.is_scored(score)
    money = np.full(len(label), np.nan)
    if not is_scored.any():
        return money
    if gate.cost is not None:
        shares = spec.target.losses("cost", score[is_scored], label[is_scored], gate.cost)
        money[is_scored] = shares * _largest(spec)
    else:
        money[is_scored] = spec.target.mistakes(score[is_scored], label[is_scored]) * (gate.error_cost or 0.0)
    return money


@dataclass(frozen=True, eq=False)
class History:
    """What was to be said of a model after each cohort."""

    nights: NDArray[np.int64]
    """(cohorts,) date ordinals of the cohorts that have rows, rising."""
    advices: NDArray[np.object_]
    """(cohorts,) what was advised after each."""
    over_default: Gain | None
    """What was answered over the safe default, after the last."""
    light_over_default: Gain | None
    """The light twin over the safe default."""
    over_light: Gain | None
    """What was answered over the light twin."""


def history(rows: Earned, running: Running, alpha: float) -> History:
    """What was to be said after each cohort, by somebody who has looked after all of them."""
    known, twin = np.isfinite(rows.served), np.isfinite(rows.light)
    nights = np.unique(rows.night[known])
    whole = _Bet(rows.default - rows.served, known, rows, running.whole, alpha)
    light = _Bet(rows.default - rows.light, twin, rows, running.light, alpha)
    heavier = _Bet(rows.light - rows.served, known & twin, rows, running.whole - running.light, alpha)
    is_bad, is_light_bad, is_heavier_bad = (bet.is_worth_less(nights) for bet in (whole, light, heavier))
    advices = np.full(len(nights), "open", dtype=object)
    advices[whole.is_worth_more(nights)] = "keep"
    advices[is_heavier_bad & ~is_light_bad] = "simplify"
    advices[is_bad & is_light_bad] = "retire"
    return History(nights, advices, whole.gain(), light.gain(), heavier.gain())


def judge(rows: Earned, running: Running, alpha: float) -> Opinion:
    """What may be said of a model after the newest cohort, and since which one it has been."""
    past = history(rows, running, alpha)
    advice: Advice = past.advices[-1] if len(past.advices) else "open"
    others = np.flatnonzero(past.advices != advice)
    begun = others[-1] + 1 if len(others) else 0
    return Opinion(
        advice=advice,
        since=None if advice == "open" else date.fromordinal(int(past.nights[begun])),
        over_default=past.over_default,
        light_over_default=past.light_over_default,
        over_light=past.over_light,
    )


class _Bet:
    """Whether one who answers saves more than it costs more to run, cohort by cohort."""

    def __init__(self, saved: Floats, known: Bools, rows: Earned, a_night: float, alpha: float) -> None:
        self.night, self.largest, self.alpha = rows.night[known], rows.largest, alpha
        self.saved = saved[known] / rows.largest
        self.ends = np.flatnonzero(np.diff(self.night, append=np.iinfo(np.int64).max)) + 1
        elapsed = self.night[self.ends - 1] - self.night[:1] + 1
        self.price = np.clip(a_night * elapsed / self.ends / rows.largest, -1.0, 1.0)  # no row can save more
        self.net = sequential.nightly(self.saved, self.night) - a_night / rows.largest * np.diff(elapsed, prepend=0)

    def is_worth_more(self, nights: NDArray[np.int64]) -> Bools:
        """Whether it is known, after each of these cohorts, that it saves more."""
        return self._known(self.saved, self.price, self.net, nights)

    def is_worth_less(self, nights: NDArray[np.int64]) -> Bools:
        """The same of less."""
        return self._known(-self.saved, -self.price, -self.net, nights)

    def gain(self) -> Gain | None:
        """What it comes to after the last cohort; None without a row."""
        if not len(self.saved):
            return None
        return Gain(
            rows=len(self.saved),
            mean=float(self.saved.mean()) * self.largest,
            low=sequential.lower(self.saved, self.alpha) * self.largest,
            high=sequential.upper(self.saved, self.alpha) * self.largest,
            cost=float(self.price[-1]) * self.largest,
        )

    def _known(self, saved: Floats, price: Floats, net: Floats, nights: NDArray[np.int64]) -> Bools:
        if not len(saved):
            return np.zeros(len(nights), dtype=bool)
        parts = np.split(saved, self.ends[:-1])
        wealth = np.cumsum([sequential.log_wealth(part) for part in parts], axis=0)
        of_rows = sequential.log_e_rows(wealth, self.ends, price)
        of_nights = sequential.log_e_nights(np.cumsum(net), np.cumsum(net**2), np.arange(1, len(net) + 1))
        proven = np.minimum(of_rows, of_nights) >= -np.log(self.alpha)
        places = np.searchsorted(self.night[self.ends - 1], nights, side="right") - 1
        known: Bools = (places >= 0) & proven[np.maximum(places, 0)]
        return known


def _largest(spec: Spec) -> float:
    cost = spec.gate.cost
    if cost is not None:
        return max(cost.false_positive, cost.false_negative, cost.true_positive, cost.true_negative)
    return spec.target.largest_loss * (spec.gate.error_cost or 0.0)
