"""What DAG files use: ids, tags and schedules of their DAGs, and by name what their tasks do and say.

`assets` (by which DAGs start each other), `task_run` (the task that is running), `nights` (which ones a run works on),
`approvals` and `explanations` (what people are asked), `work` (what a task does, stage by stage). These, `answers` and
`dag_page` are the only modules of the library that import airflow. They are imported when a DAG file is parsed, so
whatever the stages stand on (the lake, pandas, MLflow) is imported by the tasks, inside.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator as Settled
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, CronTriggerTimetable, Param

from tiltyard.edge.approvals import approvals
from tiltyard.edge.assets import (
    any_evaluation,
    any_finding,
    feature_assets,
    granted_assets,
    model_asset,
    settled_assets,
    unexplained_assets,
)
from tiltyard.edge.explanations import explanation
from tiltyard.edge.nights import each_night, governed_nights, kept, nights, same_nights
from tiltyard.edge.task_run import announce, linked, looking, night, show, skip, working
from tiltyard.edge.work import (
    JudgedNight,
    audit_fallback,
    check,
    evaluate,
    grant,
    in_short,
    judge,
    land,
    promote,
    publish,
    train,
)
from tiltyard.prepare import contracts
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.stages import StageName, dag_id

__all__ = [
    "JudgedNight", "Settled", "announce", "any_evaluation", "any_finding", "approvals", "arguments", "audit_fallback",
    "check", "each_night", "evaluate", "explanation", "feature_assets", "governed_nights", "grant", "granted_assets",
    "in_short", "judge", "kept", "land", "linked", "looking", "maintenance_timetable", "model_asset", "night", "nights",
    "per_model", "promote", "publish", "same_nights", "settled_assets", "show", "skip", "tags", "timetable", "train",
    "unexplained_assets", "working",
]  # fmt: skip

PORTFOLIO_OWNER = "tiltyard"
"""The owner of the DAGs that are no model's."""
FIRST_NIGHT = datetime(2016, 1, 1, tzinfo=UTC)
"""start_date of every DAG; nothing is caught up from it (`catchup` is off)."""

_OWN_NIGHT: dict[StageName, str] = {"features": "the run's own interval.", "lake_maintenance": "the run's own day."}
"""What an empty parameter stands for, of DAGs that start by a schedule."""


def tags(stage: StageName, spec: Spec | None = None, source: str | None = None) -> list[str]:
    """From a closed set: one `stage:`, for a model its `model:` and `tier:`, for a source its `source:`."""
    of_model = [f"model:{spec.name}", f"tier:{spec.tier}"] if spec else []
    return [f"stage:{stage}", *of_model, *([f"source:{source}"] if source else [])]


def arguments(stage: StageName, doc: str | None, spec: Spec | None = None, source: str | None = None) -> dict[str, Any]:
    """What every DAG of ours says of itself: of one of the portfolio, of a model, or of a source."""
    return {
        "dag_id": dag_id(stage, spec.name if spec else source),
        "doc_md": _doc(doc, spec),
        "tags": tags(stage, spec, source),
        "start_date": FIRST_NIGHT,
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
        "default_args": {
            "owner": spec.owner if spec else PORTFOLIO_OWNER,
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
        },
        "params": {
            "as_of": Param(
                None,
                type=["null", "string"],
                format="date",
                title="Night (as_of)",
                description="The night that closed at this day's midnight UTC. Empty: "
                + _OWN_NIGHT.get(stage, "whatever is waiting."),
            )
        },
    }


def per_model(
    stage: StageName, *, schedule: Callable[[Spec], Sequence[Asset]], doc: str | None
) -> Callable[[Callable[[Spec], None]], Callable[[Spec], DAG]]:
    """Decorate a function that lays out the tasks of one model; calling it with a spec makes the DAG."""

    def decorate(layout: Callable[[Spec], None]) -> Callable[[Spec], DAG]:
        def build(spec: Spec) -> DAG:
            with DAG(**arguments(stage, doc, spec), schedule=list(schedule(spec))) as dag:
                dag.fileloc = layout.__code__.co_filename
                layout(spec)
            return dag

        return build

    return decorate


def timetable(settings: Settings, source: str) -> CronDataIntervalTimetable | None:
    """When the features DAG of a source starts by itself; None for never. A night's `as_of` is its interval's end."""
    expression = contracts.schedule(settings, source)
    return None if expression is None else CronDataIntervalTimetable(expression, timezone="UTC")


def maintenance_timetable(settings: Settings) -> CronTriggerTimetable | None:
    """When the maintenance of the lake starts by itself; None for never. It does not start at once on a fresh Airflow,
    beside the first night."""
    if settings.maintenance_schedule.lower() in ("none", ""):
        return None
    return CronTriggerTimetable(settings.maintenance_schedule, timezone="UTC", run_immediately=False)


def _doc(doc: str | None, spec: Spec | None) -> str:
    """The module docstring, and under it the model card, where there is one."""
    text = (doc or "").strip()
    card = Settings().models / spec.name / "card.md" if spec else None
    return f"{text}\n\n---\n\n{card.read_text(encoding='utf-8')}" if card and card.exists() else text
