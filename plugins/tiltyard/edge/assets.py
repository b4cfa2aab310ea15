"""The assets by which DAGs start each other: an asset's event carries the nights it is about."""

from collections.abc import Iterable
from typing import Literal

from airflow.sdk import Asset, AssetAlias, AssetAny

from tiltyard.spec import Spec

What = Literal["challenger", "evaluation", "champion", "finding", "drift", "unexplained"]


def feature_asset(view: str) -> Asset:
    """The asset that a feature view is, whose event says that a night of it is published."""
    return Asset(name=f"features/{view}", uri=f"x-tiltyard://features/{view}", group="tiltyard")


def feature_assets(specs: Iterable[Spec]) -> list[Asset]:
    """One per feature view that a model reads, sorted."""
    return [feature_asset(view) for view in sorted({view for spec in specs for view in spec.prediction.features})]


def model_asset(spec: Spec, what: What) -> Asset:
    """`finding`: drift has looked. `drift`: the governor granted a retrain. `unexplained`: the model has been on its
    safe default for so long that a person is asked."""
    return Asset(name=f"{spec.name}/{what}", uri=f"x-tiltyard://models/{spec.name}/{what}", group="tiltyard")


def granted_assets() -> AssetAlias:
    """The governor's outlet: through it the `drift` assets of those models that may retrain, and of no others."""
    return AssetAlias(name="granted", group="tiltyard")


def settled_assets() -> AssetAlias:
    """The outlet of a source's features: through it the assets of those feature views of which it is decided how they
    stand after the night, published or not, and of no others."""
    return AssetAlias(name="settled", group="tiltyard")


def unexplained_assets() -> AssetAlias:
    """Through it the `unexplained` assets of those models that a person is asked about, and of no others."""
    return AssetAlias(name="unexplained", group="tiltyard")


def any_finding(specs: Iterable[Spec]) -> AssetAny | None:
    """Starts a run whenever drift has looked at any model; None for a portfolio without models."""
    return _any(specs, "finding")


def any_evaluation(specs: Iterable[Spec]) -> AssetAny | None:
    """Starts a run whenever a night of any model was scored; None for a portfolio without models."""
    return _any(specs, "evaluation")


def _any(specs: Iterable[Spec], what: What) -> AssetAny | None:
    assets = [model_asset(spec, what) for spec in specs]
    return AssetAny(*assets) if assets else None
