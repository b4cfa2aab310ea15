"""The promise of a model: models/<name>/spec.yaml, read into frozen, strict objects.

A typo fails at load, with the file and the line. Nothing here is pasted into SQL unchecked: table names
must match their prefix and consist of lower-case letters, digits and underscores. Classes of a label are texts, and
stand in SQL as quoted ones.

What holds for all models together is in `portfolio_rules`; how a YAML file is read, in `yaml_files`.
"""

import hashlib
import json
import re
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from tiltyard import docstrings, estimators, target
from tiltyard.clock import EVERY, NIGHT, format_duration, parse_duration
from tiltyard.errors import BadInput
from tiltyard.settings import Settings
from tiltyard.target import Target
from tiltyard.yaml_files import line_of, problems, read_yaml

Duration = Annotated[
    timedelta,
    BeforeValidator(lambda value: parse_duration(value) if not isinstance(value, timedelta) else value),
    PlainSerializer(format_duration, return_type=str),
    Field(json_schema_extra={"type": "string", "pattern": r"^\d+(ms|s|m|h|d|w)$", "examples": ["7d", "12h"]}),
]


def _no_answers(name: str) -> str:
    """A view `ftr_x__answers` would be taken for what is kept of the answers of `ftr_x`."""
    if name.endswith("__answers"):
        raise ValueError(f"'{name}' ends in __answers, which is kept for Tiltyard's own tables; give it another name")
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Column = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_HORIZON = r"^(until [a-z]\w*, at most )?\d+(ms|s|m|h|d|w)$"
_EXAMPLE = "until appointment_day, at most 180d"
_UNTIL = re.compile(r"until\s+(\w+),?\s+at\s+most\s+(\w+(?:\s\w+)?)")
Spine = Annotated[str, StringConstraints(pattern=r"^spn_[a-z0-9_]{1,58}$")]
FeatureView = Annotated[
    str, StringConstraints(pattern=r"^ftr_[a-z0-9]+(_[a-z0-9]+)*__[a-z0-9_]{1,40}$"), AfterValidator(_no_answers)
]
LabelTable = Annotated[str, StringConstraints(pattern=r"^lbl_[a-z0-9_]{1,58}$")]
PopularTable = Annotated[str, StringConstraints(pattern=r"^pop_[a-z0-9_]{1,58}$")]
Role = Literal["champion", "previous", "light"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
DEAREST = 1_000_000_000_000
"""The most that something costs: sums of a year of it are finite numbers still."""
Money = Annotated[Finite, Field(ge=0, le=DEAREST)]
"""What something costs."""
Price = Annotated[Finite, Field(gt=0, le=DEAREST)]
"""What something costs that is not for nothing."""
OutputFormat = Literal["csv", "parquet"]
"""How a file of answers is written."""
if TYPE_CHECKING:
    Kind: TypeAlias = str
    HeavyClass: TypeAlias = str
    LightClass: TypeAlias = str
    Metric: TypeAlias = str
else:  # what the kinds of label know, as closed sets
    Kind = Literal[tuple(target.KINDS)]
    HeavyClass = Literal[estimators.CLASSES]
    LightClass = Literal[target.LIGHT_CLASSES]
    Metric = Literal[tuple(target.METRICS)]


ALPHA = (0, 0.5)
"""Between which two levels a gate may err, neither of them included: from one half on it would toss a coin."""


class Strict(BaseModel):
    """Frozen, and refuses a field that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Prediction(Strict):
    """What is predicted, when, from which feature views."""

    spine: Spine
    """The table with one row per prediction to make."""
    every: Duration = NIGHT
    """How often rows of the spine are answered: `1d`, when their night closes, or `1h`, `2h`, `3h`, `4h`, `6h`, `8h` or
    `12h`, at the end of each such part of the day. They are judged by nights in either case."""
    features: Annotated[tuple[FeatureView, ...], Field(min_length=1)]
    """The feature views that the model reads."""
    max_feature_age: Duration | None = None
    """Age at the prediction time from which a feature row counts as missing. None: rows of any age count."""

    @property
    def is_hourly(self) -> bool:
        """Whether rows are answered before their night closes."""
        return self.every < NIGHT

    @field_validator("every")
    @classmethod
    def _part_of_a_night(cls, value: timedelta) -> timedelta:
        if value not in EVERY:
            parts = ", ".join(format_duration(part) for part in EVERY[1:])
            raise ValueError(
                f"{format_duration(value)} is no night and no part of it that is told apart: every night scores the "
                "rows of its day, and over a longer time a row would be scored again and again; write 1d, leave it "
                f"out, or write one of {parts}"
            )
        return value


@dataclass(frozen=True)
class Horizon:
    """How long the truth takes by definition, as a spec and a label table write it."""

    longest: timedelta
    """Time in which it is decided, whatever the row."""
    until: str | None = None
    """The column of the spine that tells when each row is decided; None where all take the longest time."""

    @classmethod
    def parse(cls, text: str) -> "Horizon":
        """Of `30d`, or of `until appointment_day, at most 180d`. Raises ValueError where it is neither."""
        if not text.lstrip().startswith("until"):
            return cls(parse_duration(text))
        if (said := _UNTIL.fullmatch(text.strip())) is None:
            raise ValueError(f"horizon '{text}' names no column and no longest time; write it like '{_EXAMPLE}'")
        return cls(parse_duration(said[2]), said[1])

    def __str__(self) -> str:
        longest = format_duration(self.longest)
        return f"until {self.until}, at most {longest}" if self.until else longest


class Trusted(Strict):
    """Labels that somebody answers for: an audit, a second look."""

    column: Column
    """A column of the label table."""
    values: Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...], Field(min_length=1)]
    """Its values, as texts, on the rows whose label is trusted."""

    def sql(self, relation: str) -> str:
        """SQL of whether a row's label is trusted, of a relation that has the column."""
        listed = ", ".join(target.literal(value) for value in self.values)
        return f'coalesce(cast({relation}."{self.column}" as varchar) in ({listed}), false)'


class Label(Strict):
    """The truth, and how long it takes."""

    table: LabelTable
    """The table with the truth per entity and prediction time."""
    kind: Kind | None = None
    """The kind of label. None: a number where `bounds` are declared, one of several classes where `classes` are, else a
    yes or no. `number` without bounds: the labels of the first training say them."""
    positive: bool = True
    """The value of a yes-or-no label that the score is the probability of."""
    bounds: tuple[Finite, Finite] | None = None
    """The least and the largest value that count of a label that is a number, in its own unit. A label beyond them
    counts as the nearer one. None: the label is no number, or `kind` is `number`."""
    classes: tuple[str, ...] | None = None
    """The 3 to 20 texts that the outcome is one of, like `[early, on_time, late]`. A label that is none of them is no
    truth, and is counted. None: the label is a yes or no, or a number."""
    horizon: Annotated[Duration, Field(json_schema_extra={"pattern": _HORIZON, "examples": ["7d", _EXAMPLE]})]
    """Time from the prediction until the truth is decided, by definition. Where that differs by row, the column of the
    spine that tells it, and the longest time: `until appointment_day, at most 180d`. A day has ended with its last
    moment, in UTC; a row of which the column tells nothing has the longest time."""
    until: Annotated[Column | None, Field(exclude_if=lambda value: value is None)] = None
    """What `horizon` says behind its `until`; written there."""
    delay: Duration = timedelta()
    """Time after the horizon until the truth is known."""
    trusted: Annotated[Trusted | None, Field(exclude_if=lambda value: value is None)] = None
    """Which labels are trusted, like `{column: checked_by, values: [audit]}`. No version learns from them, and the gate
    asks on them, as on a slice of its own, that a challenger is not worse than `max_slice_loss` allows. None: none
    are told from the others."""

    @model_validator(mode="before")
    @classmethod
    def _of_each_row(cls, content: Any) -> Any:
        text = content.get("horizon") if isinstance(content, dict) else None
        if not isinstance(text, str) or not text.lstrip().startswith("until"):
            return content
        horizon = Horizon.parse(text)
        return content | {"until": horizon.until, "horizon": horizon.longest}

    @property
    def longest(self) -> timedelta:
        """Time after a prediction in which its truth is known by definition, whatever the row."""
        return self.horizon + self.delay

    @property
    def lag(self) -> timedelta:
        """Time from the end of a cohort's day until the cohort has matured: a cohort is of one day of predictions, or,
        where a column tells when each row is decided, of one day on which rows are decided."""
        return self.delay if self.until else self.longest

    @property
    def wait(self) -> str:
        """How long labels take, in words: `30d`, or `up to 180d` where that differs by row."""
        return f"{'up to ' if self.until else ''}{format_duration(self.longest)}"

    @property
    def promised(self) -> Horizon:
        """The horizon, with the column that tells it where there is one."""
        return Horizon(self.horizon, self.until)

    @model_validator(mode="after")
    def _one_kind(self) -> "Label":
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        target.of(self).check_fields(given)
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what is promised of the label."""
        return _digest(self.model_dump(mode="json"))

    @model_serializer(mode="wrap")
    def _of_its_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        for name in target.FIELDS - target.KINDS[self.kind or target.implied(self.bounds, self.classes)].fields:
            content.pop(name)
        if self.kind in (None, target.implied(self.bounds, self.classes)):  # said or not, it is the same promise
            content.pop("kind")
        return content


class Tune(Strict):
    """The search for the estimator's parameters."""

    trials: Annotated[int, Field(ge=1, le=500)] = 20
    """Sets of parameters that are tried."""


class Estimator(Strict):
    """The champion-to-be. The class is one of a closed set: a spec may not import what it likes."""

    class_: Annotated[HeavyClass, Field(alias="class")]
    """A regressor where `label.bounds` is declared, else a classifier."""
    params: dict[str, Finite] = Field(default_factory=dict)
    """Parameters that are given and not searched, like `{max_depth: 3}`. See [estimators](estimators.md)."""
    search: dict[str, tuple[Finite, ...]] = Field(default_factory=dict)
    """Where parameters are searched, instead of where the class is searched by default: from low to high, like
    `{learning_rate: [0.01, 0.1]}`; of `half_life_days` the values to choose from."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What it is fitted on. `cuda` is for XGBoost; where there is none it is fitted on the CPU, which the version's
    record says."""
    window: Duration = timedelta(days=60)
    """Time that the training cohorts reach back from the last matured one."""
    tune: Tune = Tune()
    """The search for its parameters."""

    @model_validator(mode="after")
    def _searchable(self) -> "Estimator":
        family = estimators.of_class(self.class_)
        family.searched(self.params, self.search)
        if self.device not in family.devices:
            raise ValueError(f"{self.class_} is fitted on {' or '.join(family.devices)}; take device out")
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        plain = {"params": {}, "search": {}, "device": "cpu"}  # said or not, it is the same promise
        return {name: value for name, value in content.items() if name not in plain or value != plain[name]}


class Light(Strict):
    """The light twin: a small model on the same frame, served when the heavy one cannot be."""

    class_: Annotated[LightClass, Field(alias="class")]
    """Ridge where `label.bounds` is declared, else logistic regression."""


class Cost(Strict):
    """What a decision costs, in any unit. A row is acted on when its score reaches `threshold`."""

    false_positive: Money
    """Cost of acting on a row whose label is no."""
    false_negative: Money
    """Cost of not acting on a row whose label is yes."""
    true_positive: Money = 0.0
    """Cost of acting on a row whose label is yes."""
    true_negative: Money = 0.0
    """Cost of not acting on a row whose label is no."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Score from which a row is acted on. None: where acting and not acting cost the same in expectation."""


MIN_COVERAGE = 0.95
"""Share of the rows that must have a label, where a spec does not say less."""


class GatePolicy(Strict):
    """When a challenger has earned its place, and when it loses it again."""

    metric: Metric = "brier"
    """The loss that is decided on. `absolute_error` is for a number, as a share of the width of its bounds; `brier` and
    `log_loss` are for a yes or no and for classes, where the Brier score is halved; `cost` is for a yes or no."""
    cost: Cost | None = None
    """What right and wrong decisions cost, of a yes or no: the metric `cost` weighs them by it, and what the model is
    worth is told by it (`tiltyard worth`), whatever the metric. None: neither is asked for."""
    error_cost: Annotated[Price | None, Field(exclude_if=lambda value: value is None)] = None
    """What an error costs, by which is told what the model is worth: of a number one unit of it, of classes a likeliest
    class that did not come. A yes or no has `cost`. None: it is not asked for."""
    alpha: Annotated[float, Field(gt=ALPHA[0], lt=ALPHA[1])] = 0.05
    """Probability of ever promoting a challenger that is no better, however often one looks."""
    min_matured: Annotated[int, Field(ge=1)] = 500
    """Rows with a matured truth that a decision needs."""
    min_coverage: Annotated[float, Field(gt=0, le=1)] = MIN_COVERAGE
    """Share of the rows of a challenger's matured cohorts that must carry both scores and a label. Less only where rows
    are known to stay without an outcome, and those are no others than the rest."""
    min_shadow: Duration = timedelta(days=7)
    """Time in shadow that a decision needs."""
    slices: tuple[Name, ...] = ()
    """Features on whose values the challenger must not be worse than `max_slice_loss` allows. Where the label is one of
    several classes and there is a champion, each of them is such a slice as well: the rows in which it came."""
    max_slice_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Loss by which a challenger may be worse on any declared slice, scaled to [0, 1]."""
    max_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Root mean square distance of score and observed share; of a number, of score and mean label as a share of the
    width of its bounds; of classes, of the probability of the likeliest and how often it came. Where the champion is
    further off, its distance is the limit."""
    max_score_shift: Annotated[float, Field(ge=0)] = 0.25
    """Population stability index between the halves of the time in shadow, of classes the largest of their
    probabilities'. Where the champion's is larger, that is the
    limit."""
    max_missing_rise: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share by which any feature may be missing more often than in the training frame."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds that one row may take: the 99th percentile, as measured at registration. None:
    `fallback.deadline_ms`."""
    max_size_mb: Annotated[float, Field(gt=0)] = 50.0
    """Size of a version's files, in MB."""
    rollback_window: Duration = timedelta(days=28)
    """Time after a promotion whose predictions are compared with the previous champion's when their truth has come; the
    better one comes back. 0d: nobody watches."""
    approvals: Literal[1, 2] = 1
    """People who have to approve; tier 1 only."""
    approval_timeout: Duration = timedelta(days=1)
    """Time after which no answer is a no; tier 1 only."""

    @model_validator(mode="after")
    def _priced(self) -> "GatePolicy":
        if self.metric == "cost" and self.cost is None:
            raise ValueError("the metric cost needs gate.cost, like cost: {false_positive: 1, false_negative: 5}")
        if self.cost is not None and self.cost.false_positive + self.cost.false_negative == 0:
            raise ValueError("gate.cost prices no error; a false positive or a false negative must cost something")
        if self.cost is not None:
            alarm = self.cost.false_positive - self.cost.true_negative
            miss = self.cost.false_negative - self.cost.true_positive
            if min(alarm, miss) < 0 or max(alarm, miss) == 0:
                raise ValueError("gate.cost prices no error above the right decision, or one below it; is it swapped?")
        return self

    @property
    def is_priced(self) -> bool:
        """Whether an error has a price, so that the model's worth can be told."""
        return self.cost is not None or self.error_cost is not None


class Hysteresis(Strict):
    """An effect counts when it shows in `least` of the last `of` windows, one window a night."""

    least: Annotated[int, Field(ge=1)] = 2
    """Windows in which the effect has to show."""
    of: Annotated[int, Field(ge=1)] = 3
    """The last windows that are looked at."""

    @model_validator(mode="after")
    def _within(self) -> "Hysteresis":
        if self.least > self.of:
            raise ValueError(f"hysteresis asks for {self.least} of {self.of} windows")
        return self


class DriftPolicy(Strict):
    """When a model is looked at again."""

    window: Duration = timedelta(days=7)
    """Nights that are compared with training, up to the night itself."""
    reference: Literal["training"] = "training"
    """What they are compared with."""
    on_drift: Literal["retrain", "retrain_always", "report"] = "retrain"
    """What an alarm leads to. `retrain`: a retrain when realized or estimated performance feels it, or no version is in
    service that could; `retrain_always`: a retrain also when it does not; `report`: a report."""
    cooldown: Duration = timedelta(days=7)
    """Time between two retrains. It doubles with every retrain that made nothing better, up to
    `trainings.max_cooldown` of portfolio.yaml."""
    min_effect: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Distance (normalised Wasserstein, Jensen-Shannon) from which a change is worth an alarm."""
    hysteresis: Hysteresis = Hysteresis()
    """How often an effect has to show before it counts."""


class PrivacyPolicy(Strict):
    """What follows for a model when somebody is erased from whom it has learned."""

    on_erasure: Literal["retrain", "record"] = "record"
    """`record`: the receipt names the versions; `retrain`: a retrain is due as well, while the newest is one of them.
    The cooldown, open incidents and the portfolio's limits hold for it as for the others."""


class RetrainPolicy(Strict):
    """When a model is trained anew though nothing has drifted. The cooldown, open incidents and the portfolio's limits
    hold for these retrains as for the others."""

    every: Duration | None = None
    """Age of the newest version from which a retrain is due, not shorter than `drift.cooldown`. None: no age is."""
    after_matured: Annotated[int, Field(ge=1)] | None = None
    """Labels that have matured since the newest training, from which a retrain is due. None: nobody counts them."""

    @field_validator("every")
    @classmethod
    def _a_night(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(days=1):
            raise ValueError(f"{format_duration(value)} is shorter than a night; write 1d or more")
        return value

    @property
    def is_given(self) -> bool:
        """Whether there is any rule."""
        return self.every is not None or self.after_matured is not None


class LeakagePolicy(Strict):
    """How far the past may have been written over before a model may not learn from it (see `replay`)."""

    replay_window: Duration = timedelta(days=28)
    """Time whose predictions are compared with what the lake says of them today, twice: the newest, and the newest
    that have matured."""
    max_changed: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a feature's rows that may have changed under their own dates. One night of a source that was a day
    late changes 3.6 % of four weeks. A change that tracks the label is never allowed, however rare."""


class Popular(Strict):
    """What a model that ranks offers when it cannot tell one caller from another: the most popular items."""

    table: PopularTable
    """A table of the lake, one row per item and day: `item_id`, `item_name`, `score`, `event_time`, `available_at`."""
    size: Annotated[int, Field(ge=1, le=100)] = 10
    """Items in an answer."""


class Traffic(Strict):
    """How online traffic is split. The split is by a stable hash of the entity."""

    challenger: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of entities that the newest challenger answers."""


class Fallback(Strict):
    """What is served when the champion cannot be."""

    deadline_ms: Annotated[int, Field(ge=1, le=60_000)] = 20
    """Milliseconds after which an answer goes out, by whoever has one."""
    tiers: tuple[Role, ...] = ("champion", "previous", "light")
    """Who is asked, in this order, before the safe default."""
    safe_default: Finite | dict[str, Finite]
    """The constant that is served when no model can be: a probability; of a number, a value within its bounds; of
    classes, a probability for each, like `{early: 0.2, on_time: 0.5, late: 0.3}`, together 1."""
    audit_after: Duration = timedelta(days=3)
    """Time on the safe default after which a person has to explain it."""
    popular: Popular | None = None
    """The items that answers of the safe default carry. None: they carry none."""


class Deliver(Strict):
    """Where every night's answers are brought: a folder, S3, or a table of a PostgreSQL. No credentials stand here."""

    folder: Annotated[str, Field(min_length=1)] | None = None
    """A folder, a relative one below the home, or s3://bucket/prefix. It gets a file per night, `<model>_<night>.csv`.
    None: they go to `table`."""
    table: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}(\.[a-z][a-z0-9_]{0,62})?$")] | None = None
    """A table of the database that `connection` names, with its schema, like public.churn_scores. It is made where it
    is not there yet. None: they go to `folder`."""
    format: OutputFormat = "parquet"
    """How the files of `folder` are written."""
    connection: Name | None = None
    """The Airflow connection with address and credentials, as AIRFLOW_CONN_<NAME> in the environment or in Airflow. Of
    a table it has to be named. None: the keys of S3 are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    @model_validator(mode="after")
    def _one_place(self) -> "Deliver":
        if (self.folder is None) == (self.table is None):
            raise ValueError("name either a folder (or s3://bucket/prefix) or a table")
        if self.table is not None and self.connection is None:
            raise ValueError("a table needs connection, the name of the Airflow connection of its database")
        if self.table is not None and "format" in self.model_fields_set:
            raise ValueError("a table has no format; remove that line")
        if self.folder is not None and not re.fullmatch(r"s3://[A-Za-z0-9][^@\s]*|(?!\w+://)[^\0]+", self.folder):
            raise ValueError("folder is a folder, or written like s3://bucket/prefix, and never holds credentials")
        if self.connection is not None and self.folder is not None and not self.folder.startswith("s3://"):
            raise ValueError("a folder of this machine needs no connection; remove that line")
        return self


class Spec(Strict):
    """One model's promise. Durations are written like 7d; see models/*/spec.yaml."""

    name: Name
    """The folder under models/."""
    entity: Name
    """Whom a prediction is about. `<entity>_id` is the key of spine, feature views and label table."""
    owner: str
    """Who answers for the model; the owner of its DAGs."""
    tier: Literal[1, 2, 3]
    """The stakes. A promotion of tier 1 needs a person's approval."""
    source: Name
    """The source that feeds it: landing/<source>/, dbt/models/staging/<source>/."""
    prediction: Prediction
    """What is predicted, when, from which feature views."""
    label: Label
    """The truth, and how long it takes."""
    estimator: Estimator
    """The champion-to-be."""
    light: Light
    """The light twin."""
    gate: Annotated[GatePolicy, Field(validate_default=True)] = GatePolicy()
    """When a challenger has earned its place."""
    drift: DriftPolicy = DriftPolicy()
    """When a model is looked at again."""
    retrain: RetrainPolicy = RetrainPolicy()
    """When a model is trained anew though nothing has drifted."""
    privacy: Annotated[PrivacyPolicy, Field(exclude_if=lambda value: value == PrivacyPolicy())] = PrivacyPolicy()
    """What follows when somebody is erased from whom it has learned."""
    leakage: LeakagePolicy = LeakagePolicy()
    """How far the past may have been written over."""
    fallback: Fallback
    """What is served when the champion cannot be."""
    traffic: Traffic = Traffic()
    """How online traffic is split."""
    deliver: Annotated[Deliver | None, Field(exclude_if=lambda value: value is None)] = None
    """Where every night's answers are brought. None: nowhere, they are in the lake."""

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if len(set(self.prediction.features)) != len(self.prediction.features):
            raise ValueError("prediction.features names a feature view twice")
        every, cooldown = self.retrain.every, self.drift.cooldown
        if every is not None and every < cooldown:
            raise ValueError(
                f"retrain.every is {format_duration(every)}, and drift.cooldown lets {format_duration(cooldown)} pass "
                "between two retrains; make one longer or the other shorter"
            )
        return self

    @field_validator("estimator", "light", "gate", "fallback")
    @classmethod
    def _of_the_labels_kind(cls, part: Any, info: ValidationInfo) -> Any:
        if isinstance(label := info.data.get("label"), Label):  # else the label's own error is told
            check_part(target.of(label), part)
        return part

    @cached_property
    def target(self) -> Target:
        """The kind of label, with all that hangs on it."""
        return target.of(self.label)

    def bounded(self, bounds: tuple[float, float]) -> "Spec":
        """With bounds that were learned; the same promise, of the same digest."""
        return self.model_copy(update={"target": replace(self.target, bounds=bounds)})

    @property
    def key(self) -> str:
        """The entity's key column in spine, feature views and label table."""
        return f"{self.entity}_id"

    @property
    def tables(self) -> tuple[str, ...]:
        """What the model reads, and learns from: its spine, its feature views and its label table."""
        return (self.prediction.spine, *self.prediction.features, self.label.table)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical spec: two spellings of the same promise have the same digest."""
        return _digest(self.model_dump(mode="json", by_alias=True))

    @property
    def recipe(self) -> str:
        """SHA-256 of the parts that make a model: another gate or drift policy does not make another model."""
        return _digest(self.model_dump(mode="json", by_alias=True, include=RECIPE))


def check_part(of_label: Target, part: Estimator | Light | GatePolicy | Fallback) -> None:
    """Raises ValueError where a part of a spec is not for a label of this kind."""
    match part:
        case Estimator():
            estimators.check_class(part.class_, of_label)
        case Light():
            of_label.check_class(part.class_, of_label.light_class)
        case GatePolicy():
            of_label.check_gate(part.metric, part.cost)
            of_label.check_error_cost(part.error_cost)
        case Fallback():
            of_label.check_default(part.safe_default)


RECIPE = {"name", "entity", "source", "prediction", "label", "estimator", "light"}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


REPORT_COLUMNS = ("prediction", "label", "loss")
"""Columns that reports hold beside the features; no feature may be called so."""
TRUSTED = "is_trusted"
"""The column that says of a row whether its label is trusted, where a spec tells those."""
DECIDED = "decided_at"
"""Column of a frame that tells when the truth of each row is decided, where a column of the spine says it; no feature
of such a model may be called so."""


def feature_key(view: str) -> str:
    """The key column of a feature view: `ftr_caller__history` is keyed by `caller_id`."""
    return f"{view.removeprefix('ftr_').split('__', 1)[0]}_id"


def load(folder: Path | str) -> Spec:
    """The spec in `folder`/spec.yaml, read again when the file has changed. Raises BadInput with file and line when it
    does not hold."""
    path = Path(folder) / "spec.yaml"
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        raise BadInput(f"There is no model '{path.parent.name}': {path} does not exist.") from None
    except OSError:  # the reading says what is wrong with the file
        return _read.__wrapped__(path, 0, 0)


@lru_cache(maxsize=2048)
def _read(path: Path, modified_ns: int, size: int) -> Spec:
    """The spec in a file: a process that works on a hundred models asks for all of them a hundred times over."""
    folder = path.parent
    node, content = read_yaml(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}:1: a spec is a mapping that begins with 'entity:', see another model's spec.yaml.")
    if "name" in content:
        raise BadInput(f"{path}:{line_of(node, ('name',))}: name: the folder is the name; remove this line.")
    try:
        return Spec(name=folder.name, **{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise BadInput(problems(path, node, error)) from None


def folder_of_models(models: Path | str) -> Path:
    """The folder that holds one folder per model. Raises BadInput where there is none."""
    folder = Path(models)
    if not folder.is_dir():
        raise BadInput(f"There is no models folder at {folder}; set TILTYARD_MODELS or create it.")
    return folder


def load_all(models: Path | str) -> tuple[Spec, ...]:
    """Every spec under `models`, sorted by name. Raises BadInput at the first that does not hold."""
    return tuple(load(path.parent) for path in sorted(folder_of_models(models).glob("*/spec.yaml")))


def read_all(models: Path | str) -> tuple[tuple[Spec, ...], dict[str, BadInput]]:
    """The specs under `models` that hold, sorted by name, and name → what is wrong, of those that do not.

    Raises BadInput where there is no such folder.
    """
    specs, refused = [], {}
    for path in sorted(folder_of_models(models).glob("*/spec.yaml")):
        try:
            specs.append(load(path.parent))
        except BadInput as error:
            refused[path.parent.name] = error
    return tuple(specs), refused


def portfolio(settings: Settings) -> tuple[Spec, ...]:
    """The models that run here: those whose source is active, sorted by name."""
    return tuple(spec for spec in load_all(settings.models) if spec.source in settings.sources)


def find(models: Path | str, name: str) -> Spec:
    """The spec of one model by name, from the folder `models`.

    Raises BadInput where there is no such folder, and, naming the models there are, where there is no such model.
    """
    folder = folder_of_models(models)
    proper = isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)
    if not proper or not (folder / name / "spec.yaml").exists():
        if proper and (folder / name).is_dir():
            raise BadInput(f"There is no model '{name}' yet: {folder / name} has no spec.yaml; write it.")
        names = ", ".join(sorted(path.parent.name for path in folder.glob("*/spec.yaml"))) or "none"
        raise BadInput(f"There is no model '{name}'; the models are: {names}.")
    return load(folder / name)


def json_schema() -> dict[str, Any]:
    """JSON schema of spec.yaml, for editors (the name comes from the folder and is left out)."""
    schema = described(Spec)
    schema["properties"].pop("name")
    schema["required"] = [field for field in schema["required"] if field != "name"]
    return schema


def described(kind: type[Strict]) -> dict[str, Any]:
    """JSON schema of a kind of YAML file, with the text under each field as its description."""
    schema = kind.model_json_schema(by_alias=True, schema_generator=_Schema)
    texts = docstrings.of_attributes(sys.modules[kind.__module__])
    for title, section in {kind.__name__: schema, **schema["$defs"]}.items():
        for name, field in section["properties"].items():
            text = texts.get((title, name)) or texts[title, f"{name}_"]  # class_ is written class
            field["description"] = " ".join(text.split())
    return schema


class _Schema(GenerateJsonSchema):
    """Writes durations as a spec does."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)
