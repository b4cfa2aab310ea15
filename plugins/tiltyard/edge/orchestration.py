"""What DAG files use: ids, tags and schedules of their DAGs, and by name what their tasks do and say.

`assets` (by which DAGs start each other), `task_run` (the task that is running), `nights` (which ones a run works on),
`due` (of which models), `chunks` (how a stage goes through its models) under `limits`, `approvals` and `explanations`
(what people are asked), `operations` (what they do by hand), `work` (what a task does, stage by stage). These,
`answers` and `dag_page` are the only modules of the library that import airflow. They are imported when a DAG file is
parsed, so whatever the stages stand on (the lake, pandas, MLflow) is imported by the tasks, inside.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from airflow.providers.standard.operators.empty import EmptyOperator as Settled
from airflow.sdk import (
    DAG,
    Asset,
    AssetAny,
    AssetOrTimeSchedule,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    Param,
)

from tiltyard import release
from tiltyard.edge import resting
from tiltyard.edge.approvals import approval_tasks, approvals, second_person
from tiltyard.edge.assets import (
    any_feature,
    feature_assets,
    granted_assets,
    model_asset,
    portfolio_asset,
    settled_assets,
    unexplained_assets,
)
from tiltyard.edge.chunks import Announce, Chunks, Work
from tiltyard.edge.explanations import explanation, require_kept
from tiltyard.edge.nights import begin, each_night, end_of_run, governed_nights, kept, nights, same_nights
from tiltyard.edge.operations import CONFIRMING, confirm
from tiltyard.edge.operations import ask as ask_for
from tiltyard.edge.task_run import accepting, announce, fail, linked, looking, night, say_why, skip, working
from tiltyard.edge.work import (
    JudgedNight,
    announce_evaluations,
    announce_findings,
    announce_promotions,
    answer_hours,
    audit_alone,
    audit_fallback,
    check,
    grant,
    in_short,
    judge,
    judge_model,
    land,
    look_at_model,
    promote,
    publish,
    shadow_model,
    show_checks,
    tell,
    tidy,
    train,
    transform,
)
from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import contracts
from tiltyard.records import OperationAction
from tiltyard.settings import Settings
from tiltyard.spec import Spec, read_all
from tiltyard.stages import IN_CHUNKS, StageName, dag_id

__all__ = [
    "JudgedNight", "Settled", "accepting", "alerts_schedule", "announce", "announce_evaluations",
    "announce_findings", "announce_promotions", "answer_hours", "any_feature", "approvals", "arguments", "ask_for",
    "asks", "audit_alone", "audit_fallback", "begin", "check", "confirm", "each_night", "end_of_run", "explanation",
    "fail", "feature_assets", "governed_nights", "governor_schedule", "grant", "granted_assets", "hourly",
    "in_chunks", "in_force", "in_short", "judge", "judge_model", "kept", "land", "linked", "look_at_model",
    "looking", "maintenance_timetable", "model_asset", "night", "nights", "operating_arguments", "per_model",
    "portfolio", "portfolio_asset", "promote", "publish", "require_kept", "same_nights", "second_person",
    "settled_assets", "shadow_model", "show_checks", "skip", "tags", "tell", "tidy", "timetable", "train",
    "transform", "unexplained_assets", "working",
]  # fmt: skip

PORTFOLIO_OWNER = "tiltyard"
"""The owner of the DAGs that are no model's."""
FIRST_NIGHT = datetime(2016, 1, 1, tzinfo=UTC)
"""start_date of every DAG; nothing is caught up from it (`catchup` is off)."""

_OWN_NIGHT: dict[StageName, str] = {
    "features": "the next one that is due, which is the one after the newest that was done; where a source was never "
    "brought in, name the first.",
    "lake_maintenance": "today's.",
}
"""What an empty parameter stands for, of DAGs that start by a schedule, where somebody starts them by hand."""


def in_force() -> Settings:
    """The settings with the specs, suites and dbt project of the release in force."""
    return release.in_force(Settings())


def portfolio() -> tuple[Spec, ...]:
    """The active models in force, by name. Before the first release a spec that cannot be read is passed over: it is no
    reason why the DAGs of all others could not be."""
    settings = in_force()
    specs, _ = read_all(settings.models)
    return tuple(spec for spec in specs if spec.source in settings.sources)


def tags(stage: StageName, spec: Spec | None = None, source: str | None = None) -> list[str]:
    """From a closed set: one `stage:`, for a model its `model:` and `tier:`, for a source its `source:`."""
    of_model = [f"model:{spec.name}", f"tier:{spec.tier}"] if spec else []
    return [f"stage:{stage}", *of_model, *([f"source:{source}"] if source else [])]


def arguments(
    stage: StageName,
    doc: str | None,
    spec: Spec | None = None,
    source: str | None = None,
    models: Path | None = None,
) -> dict[str, Any]:
    """What every DAG of ours says of itself: of one of the portfolio, of a model in the folder `models`, or of a
    source."""
    return {
        "dag_id": dag_id(stage, spec.name if spec else source),
        "doc_md": _doc(doc, models / spec.name / "card.md" if spec and models else None),
        "tags": tags(stage, spec, source),
        "start_date": FIRST_NIGHT,
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
        "default_args": {
            "owner": spec.owner if spec else PORTFOLIO_OWNER,
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "on_failure_callback": say_why,
            "show_return_value_in_logs": False,  # what a task came to stands in its log as sentences
        },
        "params": _params(stage, spec),
    }


def _params(stage: StageName, spec: Spec | None) -> dict[str, Param]:
    """What a person who starts the DAG by hand may say."""
    night = Param(
        None,
        type=["null", "string"],
        format="date",
        title="Night (as_of)",
        description="The night that closed at this day's midnight UTC. The logical date above says nothing of it. "
        f"Empty: {_OWN_NIGHT.get(stage, 'whatever is waiting.')}",
    )
    if stage == "alerts":
        return {}
    if stage == "operate":
        return _operating_params()
    if stage not in IN_CHUNKS or spec is not None:
        return {"as_of": night}
    models = Param(
        [],
        type=["null", "array"],
        items={"type": "string"},
        title="Models",
        description="Their names, one a line. Empty: all of them.",
    )
    return {"as_of": night, "models": models}


def _operating_params() -> dict[str, Param]:
    """The form of `operate`. What has no default has to be given: nothing is done by pressing a button twice."""
    specs, _ = read_all(in_force().models)
    actions = [*get_args(OperationAction), CONFIRMING]
    return {
        "model": Param(type="string", enum=[spec.name for spec in specs] or ["there is no model"], title="Model"),
        "action": Param(type="string", enum=actions, title="Action"),
        "version": Param(
            None,
            type=["null", "string"],
            title="Version",
            description="Of rollback and pin: a number, or default. Empty: the previous champion, or the present one. "
            "Of confirm: the operation's number.",
        ),
        "reason": Param(type="string", minLength=1, title="Reason", description="Why; it is kept with your name."),
    }


def operating_arguments(doc: str | None) -> dict[str, Any]:
    """What `operate` says of itself. Many may ask at once: a run may wait a day for its second person."""
    return arguments("operate", doc) | {"max_active_runs": 16}


def in_chunks(stage: StageName, specs: Sequence[Spec], work: Work, announce: Announce) -> None:
    """The tasks of a stage that goes through its models in chunks, inside its DAG. See `chunks`."""
    Chunks(stage, specs, work, announce).lay_out()


def hourly(specs: Sequence[Spec]) -> bool:
    """Whether any model is answered by the hour."""
    return any(spec.prediction.is_hourly for spec in specs)


def by_stakes(spec: Spec) -> int:
    """How far ahead of others a model's tasks go where they wait for one pool: the higher the stakes, the further."""
    return 4 - spec.tier


def asks(spec: Spec) -> bool:
    """Whether a person is asked before a challenger of this model is promoted, in a DAG of its own."""
    return bool(approval_tasks(spec))


def per_model(
    stage: StageName, *, schedule: Callable[[Spec], Sequence[Asset]], doc: str | None
) -> Callable[[Callable[[Spec], None]], Callable[[Spec], DAG]]:
    """Decorate a function that lays out the tasks of one model; calling it with a spec makes the DAG."""

    def decorate(layout: Callable[[Spec], None]) -> Callable[[Spec], DAG]:
        models = in_force().models  # once, and not per model: to read the settings takes as long as to make a DAG

        def build(spec: Spec) -> DAG:
            with DAG(**arguments(stage, doc, spec, models=models), schedule=list(schedule(spec))) as dag:
                dag.fileloc = layout.__code__.co_filename
                layout(spec)
            return dag

        return build

    return decorate


def timetable(settings: Settings, source: str) -> CronDataIntervalTimetable | None:
    """When the features DAG of a source starts by itself; None for never, as of a source that rests. A night's `as_of`
    is its interval's end."""
    one = settings.model_copy(update={"sources": (source,)})
    expression = contracts.schedule(resting.noted(one), source)
    return None if expression is None else CronDataIntervalTimetable(expression, timezone="UTC")


def governor_schedule(settings: Settings) -> list[Asset] | AssetOrTimeSchedule:
    """When the governor looks: whenever drift has looked at any model; and every hour where nights come by themselves,
    since a model that never comes announces nothing."""
    finding = [portfolio_asset("finding")]
    if all(timetable(settings, source) is None for source in settings.sources):
        return finding
    hourly = CronTriggerTimetable("0 * * * *", timezone="UTC", run_immediately=False)
    return AssetOrTimeSchedule(timetable=hourly, assets=finding)


def alerts_schedule(settings: Settings) -> AssetAny | AssetOrTimeSchedule | None:
    """When people are told: when drift has looked, and every few minutes, since what has failed announces nothing. None
    where no route is named."""
    try:
        routes = load_portfolio(settings.models).routes
    except BadInput:
        routes = ()
    if not routes:
        return None
    assets = AssetAny(portfolio_asset("evaluation"), portfolio_asset("finding"))
    if settings.alerts_schedule.lower() in ("none", ""):
        return assets
    often = CronTriggerTimetable(settings.alerts_schedule, timezone="UTC", run_immediately=False)
    return AssetOrTimeSchedule(timetable=often, assets=assets)


def maintenance_timetable(settings: Settings) -> CronTriggerTimetable | None:
    """When the maintenance of the lake starts by itself; None for never. It does not start at once on a fresh Airflow,
    beside the first night."""
    if settings.maintenance_schedule.lower() in ("none", ""):
        return None
    return CronTriggerTimetable(settings.maintenance_schedule, timezone="UTC", run_immediately=False)


def _doc(doc: str | None, card: Path | None) -> str:
    """The module docstring, and under it the model card, where there is one."""
    text = (doc or "").strip()
    return f"{text}\n\n---\n\n{card.read_text(encoding='utf-8')}" if card and card.exists() else text
