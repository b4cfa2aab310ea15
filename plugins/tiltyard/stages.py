"""The stages of a night, in the order in which it goes through them. The one list of them; pure.

Each stage has the same name everywhere: its DAG file, its dag_id, its tag, its records in the ledger. A stage is of the
portfolio, of a source or of a model twice over: in Airflow (one DAG, or a DAG for every source or model) and in the
ledger (a record of the night, or a record of the night and source or model).
"""

from dataclasses import dataclass
from typing import Final, Literal

StageName = Literal[
    "features", "shadow", "promotion", "drift", "governor", "training", "fallback_audit", "explanation",
    "operate", "alerts", "lake_maintenance",
]  # fmt: skip
Per = Literal["portfolio", "source", "model"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is said of a stage in one place."""

    name: StageName
    """The name."""
    dag_per: Per
    """What has a DAG of its own."""
    asks_tier: int | None = None
    """The tier whose models have a DAG of their own beside the portfolio's, in which a person is asked."""
    recorded_per: Per
    """What has a record of its own for each night."""
    works_on: StageName | None = None
    """The stage whose finished nights it works on, model by model; None for a stage that finds its nights otherwise:
    features, alerts and the maintenance by their schedules, the governor when every model was looked at, the audit and
    the explanation by what was answered; what a person does by hand has none."""
    is_taken_up_again: bool = True
    """Whether a night on which it was stopped or failed is worked on again without being asked for. A training is not:
    the same frame would be stopped again, and the governor has gone on from there and decides anew."""


_ALL: Final = (
    Stage(name="features", dag_per="source", recorded_per="source"),
    Stage(name="shadow", dag_per="portfolio", recorded_per="model", works_on="features"),
    Stage(name="promotion", dag_per="portfolio", recorded_per="model", asks_tier=1, works_on="shadow"),
    Stage(name="drift", dag_per="portfolio", recorded_per="model", works_on="shadow"),
    Stage(name="governor", dag_per="portfolio", recorded_per="portfolio"),
    Stage(name="training", dag_per="model", recorded_per="model", works_on="governor", is_taken_up_again=False),
    Stage(name="fallback_audit", dag_per="portfolio", recorded_per="model"),
    Stage(name="explanation", dag_per="model", recorded_per="model"),
    Stage(name="operate", dag_per="portfolio", recorded_per="portfolio"),
    Stage(name="alerts", dag_per="portfolio", recorded_per="portfolio"),
    Stage(name="lake_maintenance", dag_per="portfolio", recorded_per="portfolio"),
)
STAGES: Final[dict[StageName, Stage]] = {stage.name: stage for stage in _ALL}
"""Name → stage, in the order of a night."""
OF_PORTFOLIO: Final = tuple(stage.name for stage in _ALL if stage.dag_per == "portfolio")
"""The stages with one DAG for all models."""
PER_SOURCE: Final = tuple(stage.name for stage in _ALL if stage.dag_per == "source")
"""The stages of which every source has a DAG of its own."""
PER_MODEL: Final = tuple(stage.name for stage in _ALL if stage.dag_per == "model")
"""The stages of which every model has a DAG of its own."""
IN_CHUNKS: Final = tuple(
    stage.name for stage in _ALL if stage.dag_per == "portfolio" and stage.recorded_per == "model" and stage.works_on
)
"""Those of a model that run in one DAG for all models, many models in one task."""
NIGHTLY: Final = tuple(stage.name for stage in _ALL if stage.works_on)
"""Those of a model that a night goes through; an explanation is a person's, and has no nights."""

OF_A_NIGHT: Final = ("features", *NIGHTLY, "governor", "fallback_audit")
"""Those that are a night's work. What the others use stands under the day on which they run."""


def recorded_as(stage: StageName, model: str, source: str) -> str:
    """Whose record of a stage the ledger keeps for a model of this source: the model's, its source's, or, empty, one
    for all at once."""
    return {"model": model, "source": source, "portfolio": ""}[STAGES[stage].recorded_per]


def dag_id(stage: StageName, of: str | None = None) -> str:
    """`governor` for the portfolio, `incident__features` for a source, `sla_breach__training` for a model."""
    return f"{of}__{stage}" if of else stage


def dag_of(stage: StageName, model: str, source: str) -> str:
    """The DAG in which a stage of a model runs: the portfolio's, its source's, or the model's own."""
    return dag_id(stage, {"portfolio": None, "source": source, "model": model}[STAGES[stage].dag_per])


def split(dag_id: str) -> tuple[StageName, str]:
    """(the stage, the source or model) of a DAG, by its dag_id; of one of the portfolio an empty text. Raises KeyError
    for a DAG of no stage."""
    of, _, stage = dag_id.rpartition("__")
    return STAGES[stage].name, of  # type: ignore[index]  # any text may be asked for


def place(dag_id: str) -> int:
    """Where in the order of a night a DAG stands, by its dag_id. Raises ValueError for a DAG of no stage."""
    return [*STAGES].index(dag_id.rpartition("__")[2])  # type: ignore[arg-type]  # any text may be asked for
