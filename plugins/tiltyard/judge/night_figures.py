"""What the stages have in hand of a model's night and the ledger needs for nothing else, kept for the pages.

Each stage keeps its own part (`Chronicle.keep`): what scoring counts, what the evaluation measures, what the audit
counts. Read together they are the night's figures, and nothing of the lake has to be asked for them again.
"""

from dataclasses import dataclass, field

from tiltyard.answered.report import AuditedFigures
from tiltyard.judge.arrival import ArrivalReport
from tiltyard.records import EstimatedVersion, MeasuredVersion, Record


@dataclass(frozen=True, kw_only=True)
class ScoredFigures(Record):
    """What scoring has in hand."""

    examples: dict[str, str] = field(default_factory=dict)
    """Tier → the request_id of one of its answers."""
    filled: dict[int, dict[str, float]] = field(default_factory=dict)
    """Version → column → share of the night's rows that have a value, between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedFigures(Record):
    """What the evaluation has in hand."""

    metrics: dict[str, MeasuredVersion] = field(default_factory=dict)
    """Version, or `safe_default` → how good it was on the night's window of matured cohorts."""
    slices: dict[str, dict[str, MeasuredVersion]] = field(default_factory=dict)
    """The same of every slice, `column=value`."""
    estimated: dict[str, EstimatedVersion] = field(default_factory=dict)
    """Version, or `safe_default` → what its scores promise of the rows without truth."""
    label_arrival: ArrivalReport | None = None
    """How the truth comes in; None before the first prediction."""


@dataclass(frozen=True, kw_only=True)
class NightFigures(ScoredFigures, EvaluatedFigures, AuditedFigures):
    """All that was kept of a model's night."""
