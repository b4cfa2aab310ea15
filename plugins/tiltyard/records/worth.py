"""What a model is worth: what it has earned on matured truth over what could answer in its place, and what it costs."""

from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from tiltyard.records.base import Record

Advice = Literal["keep", "simplify", "retire", "open", "unpriced"]
ADVICE: Final[dict[Advice, str]] = {
    "retire": "neither the model nor its light twin earns what it costs; the safe default would do",
    "simplify": "the heavy model does not earn what it costs more than its light twin",
    "keep": "the model earns more than it costs",
    "open": "it cannot be told yet",
    "unpriced": "no error has a price",
}
"""What is advised of a model → what it means."""


@dataclass(frozen=True, kw_only=True)
class Gain(Record):
    """What one who answers has saved over another on the same rows, beside what it costs more to run. In money."""

    rows: int
    """Number of rows with matured truth."""
    mean: float
    """What a row has saved, on average."""
    low: float
    """Lower end of an interval for that, which holds on all nights at once but for `alpha` of models."""
    high: float
    """Its upper end, of which the same holds."""
    cost: float
    """What it costs more to run, a row."""

    @property
    def net(self) -> float:
        """What a row is worth after what it costs."""
        return self.mean - self.cost


@dataclass(frozen=True, kw_only=True)
class ModelWorth(Record):
    """What a model is worth, and what follows."""

    model: str
    """The model's name."""
    advice: Advice
    """What is advised."""
    reason: str
    """Why, as a sentence."""
    night: date | None = None
    """The night as of which it is said; None where the model has none yet."""
    said_since: date | None = None
    """The night since whose truth the advice has stood; None where there is none."""
    first: date | None = None
    """The first cohort that counts; None where none does."""
    last: date | None = None
    """The last cohort that counts."""
    alpha: float = 0.05
    """Probability of ever saying of a model that it is to be retired, simplified or kept where that is wrong, each."""
    currency: str | None = None
    """The unit of money; None where the portfolio has no prices, and running costs nothing."""
    over_default: Gain | None = None
    """What was answered over the safe default; None before truth."""
    light_over_default: Gain | None = None
    """The light twin over the safe default; None where it was not scored."""
    over_light: Gain | None = None
    """What was answered over the light twin."""
