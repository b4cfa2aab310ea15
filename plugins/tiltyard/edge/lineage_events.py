"""What OpenLineage is told of a task: which tables of the lake its stage reads and writes.

Airflow's provider sends an event when a task starts, ends and fails, once a transport is set for it; without one
nothing of this is imported. The provider knows the task; this knows the tables.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow.providers.openlineage.extractors.base import BaseExtractor, OperatorLineage
from openlineage.client.event_v2 import Dataset

from tiltyard import release
from tiltyard import spec as specs_module
from tiltyard.prepare import contracts
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import STAGES, StageName, split
from tiltyard.tables import DRIFT, EVALUATION, PREDICTION, TIER_SHARE

MADE: dict[StageName, tuple[str, ...]] = {
    "shadow": (PREDICTION.name, EVALUATION.name),
    "drift": (DRIFT.name,),
    "fallback_audit": (TIER_SHARE.name,),
}
"""Stage → the tables of its own that it writes."""
READ: dict[StageName, tuple[str, ...]] = {
    "promotion": (PREDICTION.name,),
    "drift": (PREDICTION.name,),
    "fallback_audit": (PREDICTION.name,),
}
"""Stage → the tables of other stages that it reads."""
MODELS = "models"
"""Before a model's name, what stands for its versions in the registry."""


@dataclass(frozen=True)
class Touched:
    """What a stage of a DAG reads and writes, by name, sorted."""

    read: tuple[str, ...]
    """Tables of the lake, and models."""
    written: tuple[str, ...]
    """The same."""


def touched(settings: Settings, stage: StageName, of: str) -> Touched:
    """What a stage reads and writes. `of`: the source or model of its DAG; empty for one of the portfolio."""
    specs, _ = specs_module.read_all(settings.models)
    own = [spec for spec in specs if spec.source in settings.sources and of in ("", spec.name, spec.source)]
    versions = [f"{MODELS}/{spec.name}" for spec in own]
    if stage == "features":
        raw = contracts.raw_tables(settings, of)
        return _sorted(raw, (table for spec in own for table in spec.tables))
    if stage == "training":
        return _sorted(_tables(own), versions)
    if stage not in STAGES or not (stage in MADE or stage in READ):
        return _sorted((), ())
    features = _tables(own) if stage == "shadow" else ()
    return _sorted((*READ.get(stage, ()), *features, *versions), (*MADE.get(stage, ()), *_changed(stage, versions)))


class StageExtractor(BaseExtractor):
    """Of every task that is written as a function, in a DAG of a stage."""

    @classmethod
    def get_operator_classnames(cls) -> list[str]:
        """The operators that DAG files make."""
        return ["_PythonDecoratedOperator", "DecoratedSensorOperator"]

    def _execute_extraction(self) -> OperatorLineage[Any, Any] | None:
        """The tables of the stage; nothing for a DAG that is none of ours."""
        try:
            stage, of = split(self.operator.dag_id)
        except KeyError:
            return None
        settings = release.in_force(Settings())
        found, space = touched(settings, stage, of), f"ducklake:{settings.lake_path}"
        return OperatorLineage(
            inputs=[Dataset(namespace=space, name=name) for name in found.read],
            outputs=[Dataset(namespace=space, name=name) for name in found.written],
        )


def _tables(specs: Iterable[Spec]) -> list[str]:
    return [table for spec in specs for table in spec.tables]


def _changed(stage: StageName, versions: list[str]) -> list[str]:
    return versions if stage == "promotion" else []


def _sorted(read: Iterable[str], written: Iterable[str]) -> Touched:
    return Touched(tuple(sorted(set(read))), tuple(sorted(set(written))))
