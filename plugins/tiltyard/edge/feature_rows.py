"""The features of a model, each with what is known of it: how far it is filled, whether it moves anything, whether it
has drifted, how its table stands, how late its rows are, and what of the sources it is made of. No lake is read."""

from dataclasses import dataclass
from datetime import date

from tiltyard.edge import recorded
from tiltyard.edge.document import ModelStatus
from tiltyard.errors import BadInput
from tiltyard.lake import qualified
from tiltyard.prepare import columns
from tiltyard.prepare.columns import Columns
from tiltyard.rails import Rails
from tiltyard.records import Embargo, Record, Signal, TableState
from tiltyard.spec import Spec


@dataclass(frozen=True, kw_only=True)
class FeatureRow(Record):
    """A feature at a glance."""

    feature: str
    """Its name."""
    view: str | None
    """The feature view that it comes from; None where no view of the spec has it any more."""
    training: float | None
    """Share of the training rows that have a value; None where it was not kept."""
    now: float | None
    """The same share of the newest scored night; None where nothing was counted."""
    is_dead: bool
    """Whether training saw no two different values of it."""
    signal: Signal | None
    """What drift said of it; None where it has not looked."""
    state: TableState | None
    """How its view stands, where it is not good; None where it is."""
    latency: Embargo | None
    """How late the rows of its view are; None where that was not measured."""
    origins: tuple[str, ...]
    """The columns of the sources that it is made of."""


@dataclass(frozen=True, kw_only=True)
class FeatureRows(Record):
    """The features of the version that answers, or of the newest challenger where none does."""

    version: int | None
    """The version; None before the first."""
    counted: date | None
    """The night that `now` is of."""
    looked_at: date | None
    """The night that the signals are of."""
    features: tuple[FeatureRow, ...]
    """In the order of the version."""
    others: tuple[Signal, ...]
    """What drift said of predictions, labels, performance and missing values."""


def read(rails: Rails, spec: Spec, document: ModelStatus, night: date) -> FeatureRows:
    """The features as they stood after a night. `document`: the model's of that night."""
    number = document.champion if document.champion is not None else max(document.challengers, default=None)
    version = None if number is None else rails.ledger.version(spec.name, number)
    finding = rails.ledger.finding(spec.name, document.drift.night) if document.drift and document.drift.night else None
    signals = {signal.column: signal for signal in (finding.signals if finding else ()) if signal.kind == "feature"}
    others = tuple(signal for signal in (finding.signals if finding else ()) if signal.kind != "feature")
    if version is None:
        return FeatureRows(version=None, counted=None, looked_at=None, features=(), others=others)
    filled = recorded.filled(rails, spec.name, version.version, version.facts.filled, night)
    by_name = {feature.feature: feature for feature in filled.features}
    states = {state.table: state for state in document.unpublished}
    latencies = {row.table: row for row in document.latency}
    said = _columns(rails)
    rows = []
    for name in version.facts.features:
        own, signal = by_name.get(name), signals.get(name)
        view = (signal.view if signal else None) or _view(said, spec, name)
        rows.append(
            FeatureRow(
                feature=name,
                view=view,
                training=own.training if own else None,
                now=own.now if own else None,
                is_dead=bool(own and own.is_dead),
                signal=signal,
                state=states.get(view) if view else None,
                latency=latencies.get(qualified(view)) if view else None,
                origins=tuple(f"{origin.table}.{origin.column}" for origin in said.origins(view, name))
                if said and view
                else (),
            )
        )
    looked_at = finding.night if finding else None
    return FeatureRows(
        version=version.version, counted=filled.night, looked_at=looked_at, features=tuple(rows), others=others
    )


def _columns(rails: Rails) -> Columns | None:
    """What the dbt project in force says of its columns; None where it cannot be read."""
    try:
        return columns.read(rails.settings)
    except (BadInput, OSError):
        return None


def _view(said: Columns | None, spec: Spec, feature: str) -> str | None:
    """The view of a spec that has a column of this name."""
    if said is None:
        return None
    return next((view for view in spec.prediction.features if feature.lower() in said.lineage.columns(view)), None)
