"""The course of a model's loss over its last nights, beside never retraining and the safe default: what each night
measured on its window of matured rows, and a drawing of it. From the ledger alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from tiltyard.chronicle import lately
from tiltyard.edge.document import ModelStatus
from tiltyard.rails import Rails
from tiltyard.records import Record, ShadowSummary
from tiltyard.spec import Spec

NIGHTS = 60
"""Nights that are drawn."""
WIDTH, HEIGHT, LEFT, BELOW = 640, 150, 52, 20
LINES: Mapping[str, str] = {"safe_default": "safe default", "first": "never retrained", "champion": "champion"}
"""Line → what it is called, in drawing order."""


@dataclass(frozen=True, kw_only=True)
class CoursePoint(Record):
    """What a night measured, in the unit of the model's measure; None where it measured nothing."""

    night: date
    """The night."""
    champion: float | None
    """Of the version that was in service."""
    first: float | None
    """Of the first version, as if it had never been retrained."""
    safe_default: float | None
    """Of the safe default, on the champion's rows."""


def read(rails: Rails, spec: Spec, document: ModelStatus) -> tuple[CoursePoint, ...]:
    """The last nights up to that of the document, of which anything was measured."""
    night, first = document.as_of.date(), str(document.first)
    runs = rails.ledger.runs_since(ShadowSummary, {spec.name: lately(night, NIGHTS)})[spec.name]
    points = []
    for run in runs:
        if run.status != "done" or run.night > night:
            continue
        figures = run.summary.metrics
        champion = next((own for own in figures.values() if own.role == "champion"), None)
        points.append(
            CoursePoint(
                night=run.night,
                champion=champion.figure(spec.target.measure) if champion else None,
                first=figures[first].figure(spec.target.measure) if first in figures else None,
                safe_default=run.summary.default_loss,
            )
        )
    return tuple(point for point in points if any(getattr(point, line) is not None for line in LINES))


def drawn(points: Sequence[CoursePoint], estimate: float | None = None) -> str:
    """The course as SVG, made of numbers and dates alone; empty for less than two nights. `estimate`: what the
    champion's scores promise of rows without truth, drawn apart, as a ring behind the last night."""
    values = [value for point in points for line in LINES if (value := getattr(point, line)) is not None]
    if len(points) < 2 or not values:
        return ""
    shown = [*values, *([estimate] if estimate is not None else [])]
    low, high = min(shown), max(shown)
    height = (high - low) or 1.0
    first, days = points[0].night, max(1, (points[-1].night - points[0].night).days)
    right = WIDTH - 16

    def place(night: date, value: float) -> tuple[float, float]:
        across = LEFT + (right - LEFT) * (night - first).days / days
        return round(across, 1), round(8 + (HEIGHT - 8 - BELOW) * (1 - (value - low) / height), 1)

    parts = []
    for line, name in LINES.items():
        dots = [place(point.night, value) for point in points if (value := getattr(point, line)) is not None]
        if dots:
            path = " ".join(f"{across},{down}" for across, down in dots)
            parts.append(f'<polyline class="{line}" points="{path}"><title>{name}</title></polyline>')
    if estimate is not None:
        _, down = place(points[-1].night, estimate)
        parts.append(f'<circle class="estimate" cx="{WIDTH - 6}" cy="{down}" r="4"><title>estimated</title></circle>')
    base = HEIGHT - BELOW
    parts += [
        f'<text x="{LEFT - 6}" y="12" text-anchor="end">{high:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{first}</text>',
        f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{points[-1].night}</text>',
        f'<path class="axis" d="M{LEFT},{base}H{right}"/>',
    ]
    label = f"loss of {len(points)} nights, {first} to {points[-1].night}, between {low:.4g} and {high:.4g}"
    return f'<svg class="course" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
