"""The assets by which DAGs start each other: an asset's event carries the nights it is about.

What a stage of the portfolio announces goes through an alias, which is silent where there is nothing to say.
"""

from collections.abc import Iterable
from typing import Literal

from airflow.sdk import Asset, AssetAlias, AssetAny

from tiltyard.spec import Spec
from tiltyard.stages import StageName

What = Literal["challenger", "proposal", "champion", "drift", "unexplained"]
OfPortfolio = Literal["evaluation", "finding"]


def feature_asset(view: str) -> Asset:
    """The asset that a feature view is, whose event says that a night of it is published."""
    return Asset(name=f"features/{view}", uri=f"x-tiltyard://features/{view}", group="tiltyard")


def feature_assets(specs: Iterable[Spec]) -> list[Asset]:
    """One per feature view that a model reads, sorted."""
    return [feature_asset(view) for view in sorted({view for spec in specs for view in spec.prediction.features})]


def any_feature(specs: Iterable[Spec]) -> AssetAny | None:
    """Starts a run whenever a feature view of any model is published; None for a portfolio without models."""
    assets = feature_assets(specs)
    return AssetAny(*assets) if assets else None


def portfolio_asset(what: OfPortfolio) -> Asset:
    """`evaluation`: shadow has done a night of some models. `finding`: drift has looked at some, or nobody will."""
    return Asset(name=f"portfolio/{what}", uri=f"x-tiltyard://portfolio/{what}", group="tiltyard")


def model_asset(spec: Spec, what: What) -> Asset:
    """`proposal`: the gate said promote, and a person is asked. `champion`: there is another one. `drift`: the governor
    granted a retrain. `unexplained`: the model has been on its safe default for so long that a person is asked."""
    return Asset(name=f"{spec.name}/{what}", uri=f"x-tiltyard://models/{spec.name}/{what}", group="tiltyard")


def announced_through(stage: StageName) -> AssetAlias:
    """The outlet of a stage that goes through its models in chunks."""
    return AssetAlias(name=f"of_{stage}", group="tiltyard")


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
