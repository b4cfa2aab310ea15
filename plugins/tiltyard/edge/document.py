"""What `tiltyard status` and `tiltyard explain` say, as records: a document per model, made of typed parts."""

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tiltyard.answered.report import FallbackReport
from tiltyard.govern.routine import NextRetrain
from tiltyard.judge.arrival import ArrivalReport
from tiltyard.records import (
    ArmFigures,
    DataIncident,
    DeliverySummary,
    DriftSummary,
    DueForecast,
    Embargo,
    EstimatedVersion,
    FeaturesSummary,
    FeatureValue,
    FilledFeature,
    Freshness,
    GovernorAction,
    Instant,
    JsonObject,
    MeasuredVersion,
    OpenIncident,
    Operation,
    PopularItem,
    QuarantinedFile,
    Record,
    RefusedText,
    ReplaySummary,
    Status,
    TableState,
)
from tiltyard.records.base import describe, unless_empty
from tiltyard.release import Difference

SAFE_DEFAULT = "safe_default"
"""Key of the safe default among versions."""


@dataclass(frozen=True, kw_only=True)
class ServedBy(Record):
    """How many answers of the night one tier gave."""

    answers: int
    """Number of answers."""
    example: str
    """A request_id of one of them, for `tiltyard explain`."""


@dataclass(frozen=True, kw_only=True)
class GateDecision(Record):
    """The gate's decision of the newest night on which it judged."""

    night: date
    """The night."""
    challenger: int
    """The version that was judged."""
    champion: int | None
    """The version that it was held against; None for the safe default."""
    verdict: Literal["promote", "hold", "reject"]
    """What the gate says."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""
    outcome: str | None = None
    """Why it was not promoted though the gate has said so, as a sentence; None where it was, where it still may be, or
    where the gate has not."""
    due: DueForecast | None = None
    """When the challenger's evidence would be enough; None where it is, where something else than time stands in the
    way, or nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class PromotedVersion(Record):
    """A promotion."""

    night: date
    """The night; the version is in service from the next one on."""
    version: int
    """The version that became champion."""
    replaced: int | None
    """The champion before it; None for the safe default."""
    by: str | None
    """Who approved it, separated by commas; None where the tier needs no person."""


@dataclass(frozen=True, kw_only=True)
class WatchedChampion(Record):
    """The champion that is under the rollback watch."""

    champion: int
    """The version that was promoted."""
    previous: int | None
    """The version that it replaced; None for the safe default."""
    predictions_until: date
    """The last night whose predictions the watch looks at."""
    night: date | None
    """The night of the newest verdict; None before the first."""
    verdict: Literal["keep", "rollback"] | None
    """The newest verdict; None before the first."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Rollback(Record):
    """A champion that the watch sent back."""

    night: date
    """The night."""
    version: int
    """The version that was sent back."""
    back: int | None
    """The version that is in service again; None for the safe default."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class GrantedRetrain(Record):
    """A retrain that the governor granted."""

    night: date
    """The night."""
    reasons: tuple[str, ...]
    """Why, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class DriftNight(DriftSummary):
    """What the drift stage said on the newest night that it looked at, or why it ended without a finding."""

    status: Status
    """How the stage ended."""


@dataclass(frozen=True, kw_only=True)
class GovernedNight(GovernorAction):
    """What the governor decided for the model on the newest night that it decided on."""

    night: date
    """The night."""


@dataclass(frozen=True, kw_only=True)
class LearnedBounds(Record):
    """Between which values a label counts, as the labels of a training say."""

    low: float
    """The least that counts, in the label's unit."""
    high: float
    """The largest that counts."""
    learned: date
    """The night of the training that learned them."""
    rows: int
    """Number of labels of the newest training."""
    outside: int
    """Number of those that lay beyond."""


@dataclass(frozen=True, kw_only=True)
class ChecksNight(FeaturesSummary):
    """What the checks of the source said on the newest night that was built."""

    status: Status
    """How the stage ended; `checked` is not published yet."""


@dataclass(frozen=True, kw_only=True)
class TrainingNight(Record):
    """How the newest training ended."""

    night: date
    """The night as of which it trained."""
    status: Status
    """How the stage ended."""
    version: int | None
    """The version that it made; None for none."""
    reason: str | None
    """Why it made none; None where it made one."""


@dataclass(frozen=True, kw_only=True)
class FilledFeatures(Record):
    """How far the features of a version have values: at training, and on the newest night that it scored."""

    version: int
    """The champion, or the newest challenger where there is none."""
    night: date | None
    """The newest night of which its rows were counted; None where there was none lately."""
    features: tuple[FilledFeature, ...]
    """Every feature; `now` is of that night."""


@dataclass(frozen=True, kw_only=True)
class RealizedMeans(Record):
    """Mean measure of three lines on the same rows with matured truth."""

    rows: int
    """Number of rows."""
    promoted_line: float
    """Of what was served: the safe default until a challenger had earned its place."""
    never_retrained: float
    """Of the first version, as if it had been put in service at once and left there."""
    safe_default: float
    """Of the safe default, answered always."""


@dataclass(frozen=True, kw_only=True)
class Realized(RealizedMeans):
    """The lines over all nights, and since the first promotion."""

    metric: str
    """The measure: `brier`, `absolute_error`, `class_brier`; the unit is its own."""
    first: Annotated[date, Field(alias="from", description="Day of the first prediction.")]
    last: Annotated[date, Field(alias="to", description="Day of the last prediction.")]
    since_first_promotion: RealizedMeans | None
    """The same over the rows from the first promotion on; None before one, or without a row since."""


@dataclass(frozen=True, kw_only=True)
class ModelHead(Record):
    """Whose document it is, and of when."""

    model: str
    """The model's name."""
    owner: str
    """Who owns the model."""
    tier: int
    """The model's tier: 1 for the highest stakes."""
    measure: str
    """The figure that the model is measured by: `brier` of a yes or no, `absolute_error` of a number, `class_brier` of
    classes."""
    not_in_force_yet: Difference | None = None
    """How the checkout's text differs from the one in force, which is spoken of: changed, or removed; new, where there
    is none in force yet; None where it does not differ."""


@dataclass(frozen=True, kw_only=True)
class NoNight(ModelHead):
    """The document of a model of which no night was scored yet."""

    as_of: None = None
    """None: there is no night to speak of."""
    state: str
    """What to do, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class ModelStatus(ModelHead):
    """The state of one model after a night."""

    as_of: Instant
    """The end of the night that is spoken of."""
    champion: int | None
    """The version in service from the next night on; None for the safe default."""
    previous: int | None
    """The champion before it; None for the safe default."""
    challengers: tuple[int, ...]
    """The versions in shadow."""
    first: int | None
    """The first version that was trained; None before it."""
    shadow_nights: dict[int, int]
    """Challenger → number of nights that it has scored."""
    served_by: dict[str, ServedBy]
    """Tier → its answers of the night."""
    fallback: FallbackReport
    """Who answered, and what a person was asked about it."""
    popular: tuple[PopularItem, ...]
    """The most popular items; empty where the model declares no table of them."""
    matured: int
    """Number of rows of matured cohorts that have a label."""
    matured_since: date | None = None
    """The first night of those that `matured` counts; None: all there were."""
    immature: int
    """Number of rows whose cohort has not matured."""
    early: int
    """Number of those whose label is known early; counted, never decided on."""
    outside: int | None = None
    """Number of labels beyond the bounds, counted as the nearer one; None of a yes or no."""
    bounds: LearnedBounds | None = None
    """The bounds of labels that were learned; None where the spec says them, of a yes or no, and before any version."""
    figures_night: date | None = None
    """The night that `metrics`, `estimated` and `label_arrival` are of, where the newest has none; None: that of
    `as_of`."""
    metrics: dict[str, MeasuredVersion]
    """Version, or `safe_default` → how good it was on the night's window of matured cohorts."""
    gate: GateDecision | None
    """The decision that the newest judged night acted on; None before the first."""
    promotions: tuple[PromotedVersion, ...]
    """Every promotion, the oldest first."""
    operations: tuple[Operation, ...] = ()
    """What persons did to it by hand, or asked for, the oldest first."""
    held: str | None = None
    """Who holds it, how, since when and why, as the end of a sentence; None where nobody does."""
    watch: WatchedChampion | None
    """The rollback watch; None when nobody is under watch."""
    rollbacks: tuple[Rollback, ...]
    """Every rollback, the oldest first."""
    retrains: tuple[GrantedRetrain, ...]
    """Every retrain that was granted, the oldest first."""
    online: dict[str, tuple[ArmFigures, ...]]
    """Arm → how its answers turned out, the whole of it first."""
    drift: DriftNight | None
    """The newest finding; None before drift has looked."""
    governor: GovernedNight | None
    """The governor's newest decision; None before it has decided on the model."""
    freshness: dict[str, Freshness]
    """Table of the source, without its schema → how old its newest row is."""
    latency: tuple[Embargo, ...]
    """How late the rows of every table that the model stands on really were."""
    incidents: tuple[DataIncident, ...]
    """The data incidents of the source that are open after the night."""
    open_incidents: tuple[OpenIncident, ...] = ()
    """What is open after the night and holds the model, or is wrong with its source, as `tiltyard incidents` has it."""
    quarantined: tuple[QuarantinedFile, ...] = ()
    """The files of the source that were put into quarantine in the week up to the night."""
    unpublished: tuple[TableState, ...] = ()
    """The model's tables that were not good on the night, by name: since when, why, and where they stand."""
    refused: tuple[RefusedText, ...] = ()
    """What of the specs, suites and dbt files in the checkout is not in force, of this model and of what all share."""
    answered_until: Instant | None = None
    """The end of the newest night or hour whose rows were answered; None before the first."""
    unanswered: dict[date, int] = field(default_factory=dict)
    """Night of the last week → rows of the spine that nobody has answered; without the nights that have none."""
    delivery: DeliverySummary | None = None
    """How its answers are brought out now: the newest night that is there, and what is owed; None where they are
    not."""
    label_arrival: ArrivalReport | None
    """How the truth comes in; None before the first prediction."""
    estimated: dict[str, EstimatedVersion]
    """Version, or `safe_default` → what its scores promise of the rows without truth."""
    checks: ChecksNight | None
    """The checks of the source; None before the first."""
    training: TrainingNight | None = None
    """The newest training; None before the first."""
    next_retrain: NextRetrain | None = None
    """When a retrain is due that no alarm asks for; None where the spec names no rule, or nothing was trained yet."""
    features: FilledFeatures | None = None
    """How far the features have values, then and now; None without a version, or of one from before it was kept."""
    replay: ReplaySummary | None
    """The millisecond test before the newest training; None where that ended before it, or there was none."""
    realized: Realized | None
    """The lines of losses; None before anything has matured."""
    events: int
    """Number of the model's events in the ledger."""


Document = ModelStatus | NoNight
"""What `status` says of a model."""


@dataclass(frozen=True, kw_only=True)
class PredictionTruth(Record):
    """What became of a prediction."""

    label: bool | float | str
    """The label: a yes or no, a number as it is, within its bounds or not, or a text, one of the classes or not."""
    event_time: Instant
    """When it happened."""
    available_at: Instant
    """When it became known."""


@dataclass(frozen=True, kw_only=True)
class ExplainedPrediction(Record):
    """One prediction, with what it was made of."""

    model: str
    """The model's name."""
    request_id: str
    """The prediction's id."""
    entity_id: str
    """The entity that it speaks of."""
    prediction_time: Instant
    """The instant that it speaks for."""
    night: date
    """The night that made it."""
    score: float
    """What was predicted: a probability, or a number in the label's unit; of classes, that of the likeliest."""
    scores: Annotated[dict[str, float] | None, unless_empty()] = None
    """Class → probability, where the label is one of several; None elsewhere."""
    role: str
    """The role in which the version answered."""
    version: int | None
    """The version that answered; None for the safe default."""
    tier: str
    """The tier that answered."""
    tier_reason: str | None
    """Why it was no higher tier; None where it was the highest."""
    snapshot: int
    """The lake's snapshot that the features were read from."""
    apart: dict[str, int | None] = field(default_factory=dict)
    """Table that was not good, or another's batch → the snapshot that it was read from instead; None: never good."""
    features: tuple[FeatureValue, ...]
    """The inputs, in the order of the model's features."""
    truth: PredictionTruth | None
    """What became of it; None where that is not known yet."""


def schema() -> JsonObject:
    """JSON schema of what `tiltyard status --json` prints: a list with a document per model."""
    body: JsonObject = TypeAdapter(list[Document]).json_schema(mode="serialization")
    describe("", body)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tiltyard status", **body}
