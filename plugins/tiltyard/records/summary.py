"""What a stage says of a night: the summary in its record, which the next stage, `status` and the pages read.

Every field has a default, since older nights were recorded by older versions, and a stage that was stopped or failed
says what it can.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, ClassVar, Literal

from tiltyard.records.base import Instant, JsonObject, Record, formerly
from tiltyard.records.figures import ArmFigures, Measured, VersionFigures
from tiltyard.records.finding import Broken, Harm, Incident
from tiltyard.records.labels import LabelCheck
from tiltyard.records.publication import State, TableState
from tiltyard.stages import StageName


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """Base of the summaries."""

    stage: ClassVar[StageName]

    night: date | None = None
    """The night; None where only the entry around the summary says so."""
    reason: str | None = None
    """What came of it, as a sentence, where the stage has not done its work; None otherwise."""


@dataclass(frozen=True)
class PopularItem(Record):
    """One of the most popular items."""

    item_id: str
    """The item's key."""
    item_name: str
    """Its name, or its key where it has none."""
    score: float
    """Its popularity: share of the buyers, between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class FeaturesSummary(Summary):
    """The features stage: what was built, checked and published of a source."""

    stage: ClassVar[StageName] = "features"

    snapshot: int = 0
    """The lake's snapshot that was checked, and is in service once the stage is done."""
    release: str | None = None
    """Folder of the release that the night ran under; None for the checkout as it was."""
    checks: int = 0
    """Number of expectations that were looked at."""
    critical: tuple[str, ...] = ()
    """The critical checks that failed, a sentence each."""
    warnings: tuple[str, ...] = ()
    """The warnings, a sentence each."""
    reports: tuple[str, ...] = ()
    """Paths of the pages that were drawn."""
    popular: dict[str, tuple[PopularItem, ...]] = field(default_factory=dict)
    """Model → its most popular items, of those that declare a table of them."""
    states: dict[State, int] = field(default_factory=dict)
    """State → number of tables; empty in records of before tables had one."""
    published: tuple[str, ...] = ()
    """The tables that the batch brought up to date."""
    unpublished: tuple[TableState, ...] = ()
    """The tables that stay as they were, and why, by name."""
    faults: tuple[TableState, ...] = ()
    """The tables that were at fault themselves when they were judged, also of those that other sources feed as well."""
    waiting: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Table that other sources feed as well → those that it waits for."""
    kept: tuple[str, ...] = ()
    """The tables that were settled for this night before, and were not judged again."""
    rebuilt: dict[str, str] = field(default_factory=dict)
    """Table that was made anew with all its rows → why: its text had changed, or somebody asked for it."""


@dataclass(frozen=True, kw_only=True)
class LabelCounts(Record):
    """How far the truth of a model's predictions is known."""

    matured: int = 0
    """Number of rows of matured cohorts that have a label."""
    immature: int = 0
    """Number of rows whose cohort has not matured."""
    early: int = 0
    """Number of those whose label is known early; counted, never decided on."""
    missing: int = 0
    """Number of rows of matured cohorts without a label."""
    outside: int | None = None
    """Number of labels beyond the bounds, counted as the nearer one; None of a yes or no."""


@dataclass(frozen=True)
class LabelArrival(Record):
    """How many labels of a kind came on a night, beside how many were to be expected."""

    came: float
    """Number of labels that came."""
    predicted: float
    """Number that the arrival curve predicts."""


@dataclass(frozen=True, kw_only=True)
class LookupCheck(Record):
    """Looked-up online features held against the lake."""

    requests: int = 0
    """Number of requests that were looked at."""
    equal: int = 0
    """Number of rows that were the lake's."""
    stale: int = 0
    """Number of rows of which the lake knew a newer one."""
    ahead: int = 0
    """Number of rows that were not known yet, or that the lake does not know."""
    different: int = 0
    """Number of rows of which the lake says something else."""
    views: dict[str, dict[str, int]] = field(default_factory=dict)
    """Feature view → the same four counts."""
    examples: tuple[JsonObject, ...] = ()
    """A few rows that were ahead or different."""


@dataclass(frozen=True, kw_only=True)
class ShadowSummary(Summary):
    """The shadow stage: who scored, who answered, and how good it was."""

    stage: ClassVar[StageName] = "shadow"

    rows: int = 0
    """Number of rows of the spine in the night."""
    snapshot: int | None = None
    """The lake's snapshot that the features were read from; None in records of a stage that did not end."""
    unpublished: tuple[TableState, ...] = ()
    """The model's tables that were not good on the night, by name: they were read as of their last good night."""
    roles: dict[int, str] = field(default_factory=dict)
    """Version → its role, of those that score."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Tier → number of answers that it gave."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason → number of answers that were given for it."""
    failed: dict[str, str] = field(default_factory=dict)
    """Version → why it did not score."""
    note: str | None = None
    """What a person should know of the night; None where there is nothing."""
    counts: LabelCounts = LabelCounts()
    """How far the truth is known: of the last drift.window of matured cohorts, and of those that have not matured."""
    metrics: dict[str, VersionFigures] = field(default_factory=dict)
    """Version, or `safe_default` → how good it was."""
    default_loss: float | None = None
    """What the safe default lost on the rows that the champion is measured on, in the unit of the model's measure; None
    where there is no champion, or nothing has matured."""
    arrival: dict[str, LabelArrival] = field(default_factory=dict)
    """Kind of label → how many came and were to be expected."""
    unanswered: dict[date, int] = field(default_factory=dict)
    """Night of the last week → rows of the spine that nobody has answered; without the nights that have none."""
    online: dict[str, tuple[ArmFigures, ...]] = field(default_factory=dict)
    """Arm → how its answers turned out, the whole of it first."""
    lookups: LookupCheck | None = None
    """Online features held against the lake; None where nothing was looked up."""
    labels: LabelCheck | None = None
    """The newest labels held against what an older version had said; None in records of before that was asked."""


@dataclass(frozen=True, kw_only=True)
class AnsweredHour(Record):
    """An hour of a night whose rows were answered before the night closes."""

    as_of: Instant
    """The end of the hour."""
    night: date
    """Date that names the night."""
    rows: int
    """Number of rows of the spine in the hour."""
    answered: int
    """Number of those that had no answer, and have one now."""
    snapshot: int
    """The lake's snapshot that the features were read from."""
    unpublished: tuple[TableState, ...] = ()
    """The model's tables that were not good, by name: they were read as of their last good night or hour."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Tier → number of these answers that it gave."""
    failed: dict[str, str] = field(default_factory=dict)
    """Version → why it did not score."""


@dataclass(frozen=True, kw_only=True)
class ChallengerDecision(Record):
    """The gate's decision on one challenger, in short."""

    challenger: int
    """The version that was judged."""
    champion: int | None
    """The version that it was held against; None for the safe default."""
    verdict: str
    """promote, hold or reject."""
    reasons: tuple[str, ...]
    """What stands in the way, or what was met."""
    digest: str | None = None
    """SHA-256 of the evidence."""
    mean: float | None = None
    """Mean difference of losses; None without a row."""
    low: float | None = None
    """Its lower bound."""
    high: float | None = None
    """Its upper bound."""
    matured: int = 0
    """Number of matured rows."""
    nights: int = 0
    """Number of nights in shadow."""


@dataclass(frozen=True, kw_only=True)
class WatchVerdict(Record):
    """What the rollback watch says on a night, in short."""

    champion: int
    """The version that was promoted, and is watched."""
    previous: int | None
    """The version that it replaced; None for the safe default."""
    verdict: str
    """keep or rollback."""
    reasons: tuple[str, ...]
    """Why."""
    matured: int = 0
    """Number of matured rows since the promotion."""
    mean: float | None = None
    """Mean difference of losses; None without a row."""
    low: float | None = None
    """Its lower bound."""
    high: float | None = None
    """Its upper bound."""
    promoted_on: date | None = None
    """The night of the promotion."""
    is_held: bool = False
    """Whether it would have gone back, and a person's word keeps it."""


@dataclass(frozen=True)
class DueForecast(Record):
    """When a challenger's evidence would be enough, if nights go on as they have. Decided on by nobody."""

    early: date | None = None
    """Begin of an interval that holds for about eight of ten challengers; None where that is not within months."""
    likely: date | None = None
    """The night by which it would be in half of all courses; None where it would not be within months."""
    late: date | None = None
    """End of the interval; None where that is not within months."""
    never: float = 0.0
    """Share of courses in which it would not be enough within that time."""

    def __str__(self) -> str:
        if self.likely is None:
            return "more likely not within months, if nights go on as they have"
        end = f"to {self.late:%-d %B}" if self.late else "or not within months"
        return f"due about {self.likely:%-d %B} ({self.early:%-d %B} {end}), if nights go on as they have"


@dataclass(frozen=True, kw_only=True)
class PromotionSummary(Summary):
    """The promotion stage: what the watch and the gate said, and whether the champion changed."""

    stage: ClassVar[StageName] = "promotion"

    model: str = ""
    """The model's name."""
    verdict: str = "hold"
    """The verdict to act on: promote, hold or reject."""
    challenger: int | None = None
    """The version that it is about; None without a challenger."""
    champion: int | None = None
    """The version in service when it was judged; None for the safe default."""
    reasons: tuple[str, ...] = ()
    """Why."""
    evidence: str | None = None
    """What an approval is bound to: SHA-256 of the page, or of the record without one; None without a challenger."""
    page: str | None = None
    """The page's path below settings.reports; None without one."""
    needs_approval: bool = False
    """Whether a person has to approve."""
    watch: WatchVerdict | None = None
    """The rollback watch; None when nobody is under watch."""
    decisions: tuple[ChallengerDecision, ...] = ()
    """Every challenger's decision."""
    due: DueForecast | None = None
    """When the challenger's evidence would be enough; None where it is, where something else stands in the way, or
    nothing can be said."""
    promoted: int | None = None
    """The version that was promoted; None for none."""
    replaced: int | None = None
    """The version that it replaced; None for the safe default, or without a promotion."""
    rolled_back: int | None = None
    """The version that was sent back; None for none."""
    reason: str | None = None
    """What came of it, as a sentence; None in records of before there was one."""


@dataclass(frozen=True, kw_only=True)
class SkewedFeature(Record):
    """A feature as requests bring it, beside the same nights' rows."""

    value: float | None
    """Distance of the two distributions; None where it cannot be computed."""
    threshold: float
    """The distance from which on it counts."""
    missing: float
    """Share of missing values in the requests."""
    missing_offline: float
    """The same in what it is held against."""
    skewed: bool
    """Whether either is over its limit."""
    against: str = "offline"
    """`offline` for the same nights' rows, `training` where they were too few."""


@dataclass(frozen=True, kw_only=True)
class Skew(Record):
    """Whether requests bring features as the night's rows have them."""

    rows: int = 0
    """Number of requests that were looked at."""
    skewed: tuple[str, ...] = ()
    """The features that are not as at night."""
    features: dict[str, SkewedFeature] = field(default_factory=dict)
    """Feature → what was found."""
    note: str | None = None
    """Why nothing could be said; None where something was."""


@dataclass(frozen=True, kw_only=True)
class DriftSummary(Summary):
    """The drift stage: the finding in short."""

    stage: ClassVar[StageName] = "drift"

    model: str = ""
    """The model's name."""
    version: int | None = None
    """The version that was looked at; None without one."""
    verdict: str = ""
    """The finding in a word: steady, alarm, broken, no_reference, …"""
    reasons: tuple[str, ...] = ()
    """Why, a sentence each."""
    report: str | None = None
    """Path of the page that was drawn; None where none was."""
    alarm: bool = False
    """Whether it is an alarm."""
    raised: bool = False
    """Whether the alarm was raised on this night."""
    evidence: float | None = None
    """The model's e-detector; None where nothing was tested. One without bound is the largest float there is."""
    threshold: float | None = None
    """The evidence from which on it is an alarm; None where nothing was tested."""
    harm: Harm = "unknown"
    """Whether performance feels it."""
    harm_reason: Annotated[str, formerly("harm_said", now="harm_reason")] = ""
    """The figures behind it, as a sentence."""
    broken: tuple[Broken, ...] = ()
    """The data that cannot be trusted, or is missing."""
    drifted: tuple[str, ...] = ()
    """The columns that drifted, what moved most first."""
    untested: dict[str, str] = field(default_factory=dict)
    """Column → why it could not be tested."""
    skew: Skew | None = None
    """Online features against the night's; None without requests."""


@dataclass(frozen=True, kw_only=True)
class GovernorAction(Record):
    """What the governor decided for one model."""

    decision: str
    """retrain, queued, cooldown, report, steady, incident or waiting."""
    reasons: tuple[str, ...] = ()
    """Why, a sentence each."""
    incident: str | None = None
    """The node of the incident that holds it; None without one."""


@dataclass(frozen=True, kw_only=True)
class GovernorSummary(Summary):
    """The governor: what it decided for every model of a night."""

    stage: ClassVar[StageName] = "governor"

    granted: tuple[str, ...] = ()
    """The models that may retrain, in the order of their precedence."""
    actions: dict[str, GovernorAction] = field(default_factory=dict)
    """Model → what was decided."""
    since: tuple[tuple[str, str, str, date], ...] = ()
    """(model, kind, column, night): what drifts, and since when."""


@dataclass(frozen=True, kw_only=True)
class PortfolioNight(Record):
    """What the governor decided on a night for the models that it was asked about."""

    night: date
    """The night."""
    granted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Model that may retrain → why, a sentence each; in the order of their precedence."""
    actions: dict[str, GovernorAction] = field(default_factory=dict)
    """Model → what was decided."""
    incidents: tuple[Incident, ...] = ()
    """The portfolio's incidents, by node."""
    decisions: dict[str, int] = field(default_factory=dict)
    """Decision → number of models, without those that no model got."""


@dataclass(frozen=True, kw_only=True)
class ReplaySummary(Record):
    """The millisecond test before a training."""

    verdict: Literal["pass", "warn", "fail", "untestable"] = "untestable"
    """What it says."""
    rows: int = 0
    """Number of predictions that were replayed."""
    tested: int = 0
    """Number of those that can acquit: they were made from a snapshot that held nothing of later nights."""
    critical: tuple[str, ...] = ()
    """What stops the training, a sentence each."""
    untested: tuple[str, ...] = ()
    """What could not be tested, and why, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(Summary):
    """The training stage: which version was made, from which frame, or why none was."""

    stage: ClassVar[StageName] = "training"

    model: str = ""
    """The model's name."""
    trained: bool = False
    """Whether there is a version for these inputs."""
    reused: bool = False
    """Whether the version was there already."""
    version: int | None = None
    """The version's number; None where none was made."""
    reason: str | None = None
    """Why no version was made; None where one was."""
    frame: str | None = None
    """SHA-256 of the training frame; None before there was one."""
    rows: int = 0
    """Number of rows of the frame."""
    metrics: Measured | None = None
    """How good it was on held-out rows; None without a version."""
    run_id: str | None = None
    """MLflow's run; None without a version."""
    reasons: tuple[str, ...] = ()
    """Why it was trained, a sentence each."""
    requested_by: str | None = None
    """Who asked for it; None in records of trainings that made no version."""
    replay: ReplaySummary | None = None
    """The millisecond test; None where the training ended before it."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the version's features, a sentence each; empty where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class FallbackAuditSummary(Summary):
    """The audit of who answered."""

    stage: ClassVar[StageName] = "fallback_audit"

    answers: int = 0
    """Number of answers of the night."""
    on_default_since: date | None = None
    """The first night of the stretch on the safe default; None when it is not on it."""
    share: float = 0.0
    """Share of the answers that were the safe default, in the stretch."""
    opened: bool = False
    """Whether a person is asked from this night on."""
    recovered: tuple[date, ...] = ()
    """The nights whose questions the model's recovery has closed."""


@dataclass(frozen=True, kw_only=True)
class LakeSize(Record):
    """How large the lake is, by its own record."""

    files: int = 0
    """Number of files that the newest snapshot reads."""
    bytes: int = 0
    """Their size, in bytes."""
    stored: int = 0
    """Number of all files, with those of older snapshots and those that wait to be removed."""
    stored_bytes: int = 0
    """Their size without the ones that wait to be removed, in bytes."""
    snapshots: int = 0
    """Number of snapshots."""


@dataclass(frozen=True, kw_only=True)
class LakeDamage(Record):
    """A file of the lake whose bytes are not those that were written, and who may have used it."""

    table: str
    """The table whose rows it holds."""
    file: str
    """Its name."""
    path: str
    """Where it lies."""
    rows: int
    """Number of its rows."""
    reason: str
    """What is wrong with it."""
    found_at: Instant
    """When that was found, wall clock."""
    is_current: bool
    """Whether the table as it is now has it; of a past one only replays, frames and explanations read it."""
    models: tuple[str, ...] = ()
    """The models that stand on the table; empty of a table of the stages."""
    versions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Model → its versions whose frame was read from a snapshot that has it."""
    answers: dict[str, int] | None = None
    """Model → number of its answers from such a snapshot; None where they could not be counted."""


@dataclass(frozen=True, kw_only=True)
class ScrubSummary(Record):
    """A look at files of the lake."""

    is_encrypted: bool
    """Whether every read finds what has turned; of plain files only such a look does."""
    files: int
    """Number of files that the lake has."""
    looked_at: int
    """Number of those that were looked at."""
    bytes: int
    """Their size, in bytes."""
    never: int
    """Number of files that nobody has looked at yet."""
    oldest: Instant | None = None
    """When the file was looked at that was longest ago, of those that were; None where none was."""
    damaged: tuple[LakeDamage, ...] = ()
    """The files that are damaged, whoever found it."""


@dataclass(frozen=True, kw_only=True)
class LakeMaintenanceSummary(Summary):
    """The maintenance of the lake: what was merged, expired and removed."""

    stage: ClassVar[StageName] = "lake_maintenance"

    is_dry_run: bool = False
    """Whether nothing was done: then the counts are of what would be."""
    before: LakeSize = LakeSize()
    """The lake before."""
    after: LakeSize = LakeSize()
    """The lake afterwards."""
    chain_head: str | None = None
    """The head of the ledger's chain then."""
    chain_faults: tuple[str, ...] = ()
    """What of the ledger was not as it was put down."""
    expired: int = 0
    """Number of snapshots that nothing refers to, and that are gone."""
    kept: dict[str, int] = field(default_factory=dict)
    """Reason → number of snapshots that stay for it; one may stay for several."""
    merged: dict[str, int] = field(default_factory=dict)
    """Table → number of small files that were made one or few."""
    rewritten: dict[str, int] = field(default_factory=dict)
    """Table → number of files that were written anew without their deleted rows."""
    busy: tuple[str, ...] = ()
    """The tables that others wrote to each time, and that wait for the next night."""
    removed: int = 0
    """Number of files that nothing reads any more, and that are gone."""
    orphans: int = 0
    """Number of files that writers left behind who did not commit, and that are gone."""
    abandoned: int = 0
    """Number of half-written files of the home and the landing zone whose writers were stopped, and that are gone."""
    scrub: ScrubSummary | None = None
    """What a look at some of the files has found; None where nobody looked."""
    rows_removed: dict[str, int] = field(default_factory=dict)
    """Table → number of rows that its retention has let go."""
    holds: int = 0
    """Number of legal holds that stand."""
    seconds: float = 0.0
    """Time that it took, in seconds."""


SUMMARIES: dict[StageName, type[Summary]] = {kind.stage: kind for kind in Summary.__subclasses__()}
"""Stage → the class of its summary."""
