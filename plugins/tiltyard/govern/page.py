"""The drift page of a night, drawn when somebody opens it: from the ledger's finding, and the rows of then.

Evidently takes seconds and some hundred megabytes for a page, and of a hundred models nobody opens more than a few: so
no night waits for one. `python -m tiltyard.govern.page MODEL NIGHT` is the process of its own in which the portfolio
page lets it be drawn. A night that is measured again loses its page, and the next who opens it gets the new one. What
numbers are in is said beside them, and of a column that identifies a person no value is drawn (prepare/columns.py).
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, Unavailable
from tiltyard.govern.look import Look
from tiltyard.govern.raw import Raw, tested, without_pictures
from tiltyard.pages import kit
from tiltyard.prepare import columns
from tiltyard.rails import Rails
from tiltyard.records import DriftSummary, Finding
from tiltyard.settings import Settings
from tiltyard.spec import Spec, find

log = logging.getLogger(__name__)


def path(settings: Settings, model: str, night: date) -> Path:
    """Where the page of a model's night lies, once it is drawn."""
    return settings.reports / "drift" / model / f"{night}.html"


def draw(rails: Rails, spec: Spec, night: date) -> Path:
    """Draw the page of a night. Where the rows or Evidently are not to be had it says so, above what was decided.

    Raises BadInput when the model was not compared on that night.
    """
    finding = rails.ledger.finding(spec.name, night)
    run = rails.ledger.stage_run(DriftSummary, spec.name, night)
    if finding is None or finding.report is None or run is None or run.summary.version is None:
        raise BadInput(f"{spec.name} was not compared with its training on {night}; there is nothing to draw.")
    title = f"Drift of {spec.name} {run.summary.version}, night of {night}"
    try:
        said = _Said.of(rails.settings, spec)
        page = _raw(rails, spec, finding, run.summary.version, said).draw(title, finding, said.units)
    except Unavailable:
        raise
    except Exception as error:  # whatever Evidently or the lake says: what was decided is shown all the same
        log.warning("no pictures for %s: %s", title, error)
        page = without_pictures(title, finding, str(error))
    return kit.save(page, path(rails.settings, spec.name, night))


@dataclass(frozen=True)
class _Said:
    """What is said of a model's features, as far as a drawing of their values has to know it."""

    units: Mapping[str, str]
    """Feature → what its numbers are in."""
    identifying: frozenset[str]
    """Features that identify a person."""

    @classmethod
    def of(cls, settings: Settings, spec: Spec) -> "_Said":
        said = columns.read(settings)
        features = [(view, name) for view in spec.prediction.features for name in said.lineage.described.get(view, ())]
        units = {name: unit for view, name in features if (unit := said.unit(view, name))}
        return cls(units, frozenset(name for view, name in features if said.identifies(view, name)))


def _raw(rails: Rails, spec: Spec, finding: Finding, version: int, said: _Said) -> Raw:
    """The values that the page shows: of everything that was tested, but for what identifies a person."""
    shown = [signal for signal in tested(finding.signals) if signal.column not in said.identifying]
    limits = {signal.column: signal.threshold or 0.0 for signal in shown}
    return Look(rails, spec, clock.midnight(finding.night), version).raw(list(limits), limits)


def main(model: str, night: str) -> None:
    settings = Settings()
    with rails_module.opened(settings) as rails:
        print(draw(rails, find(settings.models, model), date.fromisoformat(night)))


if __name__ == "__main__":
    main(*sys.argv[1:])
