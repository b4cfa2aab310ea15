"""The promise of a model: models/<name>/spec.yaml, read into frozen, strict objects.

A typo fails at load, with the file and the line. Nothing here is pasted into SQL unchecked: table names
must match their prefix and consist of lower-case letters, digits and underscores.
"""

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
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

from tiltyard.clock import format_duration, parse_duration
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

Duration = Annotated[
    timedelta,
    BeforeValidator(lambda value: parse_duration(value) if not isinstance(value, timedelta) else value),
    PlainSerializer(format_duration, return_type=str),
    Field(json_schema_extra={"type": "string", "pattern": r"^\d+(ms|s|m|h|d|w)$", "examples": ["7d", "12h"]}),
]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Spine = Annotated[str, StringConstraints(pattern=r"^spn_[a-z0-9_]{1,58}$")]
FeatureView = Annotated[str, StringConstraints(pattern=r"^ftr_[a-z0-9]+(_[a-z0-9]+)*__[a-z0-9_]{1,40}$")]
LabelTable = Annotated[str, StringConstraints(pattern=r"^lbl_[a-z0-9_]{1,58}$")]
PopularTable = Annotated[str, StringConstraints(pattern=r"^pop_[a-z0-9_]{1,58}$")]
Role = Literal["champion", "previous", "light"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Prediction(Strict):
    """What is predicted, when, from which feature views."""

    spine: Spine
    every: Duration = timedelta(days=1)
    features: Annotated[tuple[FeatureView, ...], Field(min_length=1)]
    max_feature_age: Duration | None = None
    """A feature row older than this at the prediction time counts as missing."""


class Label(Strict):
    """The truth, and how long it takes."""

    table: LabelTable
    positive: bool = True
    bounds: tuple[Finite, Finite] | None = None
    """Declared: the label is a number, in its own unit, and these are the least and the largest that count. A label
    beyond them counts as the nearer one. None: it is a yes or no."""
    horizon: Duration
    delay: Duration = timedelta()

    @model_validator(mode="after")
    def _one_kind(self) -> "Label":
        if self.bounds is not None and "positive" in self.model_fields_set:
            raise ValueError("bounds say that the label is a number, which has no positive; take one of the two out")
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds go from low to high, like [0, 100], not {list(self.bounds)}")
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        content.pop("bounds" if self.bounds is None else "positive")
        return content


class Tune(Strict):
    trials: Annotated[int, Field(ge=1, le=500)] = 20


class Estimator(Strict):
    """The champion-to-be. The class is one of a closed set: a spec may not import what it likes."""

    class_: Annotated[Literal["xgboost.XGBClassifier", "xgboost.XGBRegressor"], Field(alias="class")]
    window: Duration = timedelta(days=60)
    """How far back training cohorts reach from the last matured one."""
    tune: Tune = Tune()


class Light(Strict):
    """The light twin: a small model on the same frame, served when the heavy one cannot be."""

    class_: Annotated[
        Literal["sklearn.linear_model.LogisticRegression", "sklearn.linear_model.Ridge"], Field(alias="class")
    ]


class Cost(Strict):
    """What a decision costs, in any unit. A row is acted on when its score reaches `threshold`."""

    false_positive: Annotated[float, Field(ge=0)]
    false_negative: Annotated[float, Field(ge=0)]
    true_positive: Annotated[float, Field(ge=0)] = 0.0
    true_negative: Annotated[float, Field(ge=0)] = 0.0
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """None: where acting and not acting cost the same in expectation."""


class GatePolicy(Strict):
    """When a challenger has earned its place, and when it loses it again."""

    metric: Literal["brier", "log_loss", "cost", "absolute_error"] = "brier"
    """absolute_error: of a number, over the width of its bounds; the others: of a yes or no."""
    cost: Cost | None = None
    """The matrix that the metric `cost` weighs decisions by."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_matured: Annotated[int, Field(ge=1)] = 500
    min_shadow: Duration = timedelta(days=7)
    slices: tuple[Name, ...] = ()
    max_slice_loss: Annotated[float, Field(ge=0, le=1)] = 0.02
    """How much worse (in the metric, its losses scaled to [0, 1]) a challenger may be on any declared slice."""
    max_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Root mean square distance of score and observed share (of a number: and mean label, over the width of its
    bounds). A champion that is further off lends its own."""
    max_score_shift: Annotated[float, Field(ge=0)] = 0.25
    """Population stability index between the halves of the time in shadow. A champion's larger one counts instead."""
    max_missing_rise: Annotated[float, Field(ge=0, le=1)] = 0.2
    """By how much any feature's share of missing values may exceed that of the training frame."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Of one row, the 99th percentile as measured at registration. None: fallback.deadline_ms."""
    max_size_mb: Annotated[float, Field(gt=0)] = 50.0
    rollback_window: Duration = timedelta(days=28)
    """Predictions of so long after a promotion are held against the previous champion's when their truth has come; the
    better one comes back. 0d: nobody watches."""
    approvals: Literal[1, 2] = 1
    """Tier 1 only: how many people have to approve."""
    approval_timeout: Duration = timedelta(days=1)
    """Tier 1 only: no answer within this time is a no."""

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


class Hysteresis(Strict):
    """An effect counts when it shows in `least` of the last `of` windows, one window a night."""

    least: Annotated[int, Field(ge=1)] = 2
    of: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _within(self) -> "Hysteresis":
        if self.least > self.of:
            raise ValueError(f"hysteresis asks for {self.least} of {self.of} windows")
        return self


class DriftPolicy(Strict):
    """When a model is looked at again."""

    window: Duration = timedelta(days=7)
    reference: Literal["training"] = "training"
    on_drift: Literal["retrain", "retrain_always", "report"] = "retrain"
    """`retrain`: when realized or estimated performance feels it, or no version is in service that could;
    `retrain_always`: also when it does not."""
    cooldown: Duration = timedelta(days=7)
    """Between two retrains. Doubles with every retrain that made nothing better (portfolio.yaml says up to what)."""
    min_effect: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The distance (normalised Wasserstein, Jensen-Shannon) from which a change is worth an alarm."""
    hysteresis: Hysteresis = Hysteresis()


class LeakagePolicy(Strict):
    """How far the past may have been written over before a model may not learn from it (see `replay`)."""

    replay_window: Duration = timedelta(days=28)
    """Predictions of so many days are held against what the lake says of them today: the newest, and the newest
    that have matured."""
    max_changed: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a feature's rows that may have changed under their own dates. One night of a source that was a day
    late changes 3.6 % of four weeks. A change that tracks the label is never allowed, however rare."""


class Popular(Strict):
    """What a model that ranks offers when it cannot tell one caller from another: the most popular items."""

    table: PopularTable
    """A table of the lake, one row per item and day: `item_id`, `item_name`, `score`, `event_time`, `available_at`."""
    size: Annotated[int, Field(ge=1, le=100)] = 10


class Traffic(Strict):
    """How online traffic is split. The split is by a stable hash of the entity."""

    challenger: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of entities that the newest challenger answers."""


class Fallback(Strict):
    """What is served when the champion cannot be."""

    deadline_ms: Annotated[int, Field(ge=1, le=60_000)] = 20
    tiers: tuple[Role, ...] = ("champion", "previous", "light")
    safe_default: Finite
    """A probability; of a number, a value within its bounds."""
    audit_after: Duration = timedelta(days=3)
    """A model that has been on its safe default for so long needs a person's explanation."""
    popular: Popular | None = None
    """Declared: answers of the safe default carry the most popular items."""


class Budget(Strict):
    """How many retrains for nothing the portfolio may cost, whatever the number of models."""

    false_retrains_per_model_year: Annotated[float, Field(gt=0, le=52)] = 1.0
    false_retrains_per_year: Annotated[float, Field(gt=0)] | None = None
    """Of the whole portfolio, shared equally by its models; the smaller of the two counts."""

    def nights_between(self, models: int) -> float:
        """Nights of one model between two false alarms, in expectation: what its detector has to promise."""
        share = self.false_retrains_per_model_year
        if self.false_retrains_per_year is not None:
            share = min(share, self.false_retrains_per_year / max(models, 1))
        return 365.25 / share


class Trainings(Strict):
    per_night: Annotated[int, Field(ge=1)] = 10
    at_once: Annotated[int, Field(ge=1)] = 2
    max_cooldown: Duration = timedelta(days=56)
    """How far the cooldown of a model may grow whose retrains make nothing better."""


class SharedBreak(Strict):
    """From how many models on a fault that they have in common is one incident of what feeds them."""

    models: Annotated[int, Field(ge=2)] = 3
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the models that read the node and were looked at."""


class Portfolio(Strict):
    """What holds for all models together: models/portfolio.yaml. Every field has a default."""

    budget: Budget = Budget()
    trainings: Trainings = Trainings()
    shared_break: SharedBreak = SharedBreak()


class Spec(Strict):
    """One model's promise. Durations are written like 7d; see models/*/spec.yaml."""

    name: Name
    entity: Name
    owner: str
    tier: Literal[1, 2, 3]
    source: Name
    """The source that feeds it: landing/<source>/, dbt/models/staging/<source>/."""
    prediction: Prediction
    label: Label
    estimator: Estimator
    light: Light
    gate: Annotated[GatePolicy, Field(validate_default=True)] = GatePolicy()
    drift: DriftPolicy = DriftPolicy()
    leakage: LeakagePolicy = LeakagePolicy()
    fallback: Fallback
    traffic: Traffic = Traffic()

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if len(set(self.prediction.features)) != len(self.prediction.features):
            raise ValueError("prediction.features names a feature view twice")
        return self

    @field_validator("estimator", "light", "gate", "fallback")
    @classmethod
    def _of_the_labels_kind(cls, part: Any, info: ValidationInfo) -> Any:
        if isinstance(label := info.data.get("label"), Label):  # else the label's own error is told
            unfit(label, part)
        return part

    @property
    def is_regression(self) -> bool:
        """Is the label a number?"""
        return self.label.bounds is not None

    @property
    def bounds(self) -> tuple[float, float]:
        """Where a score has to lie: within the label's bounds, or [0, 1] of a probability."""
        return self.label.bounds or (0.0, 1.0)

    @property
    def measure(self) -> Literal["brier", "absolute_error"]:
        """The figure that is shown of every version, whatever the gate decides on. The error is in the label's unit."""
        return "absolute_error" if self.is_regression else "brier"

    def scaled(self, values: Any) -> Any:
        """Scores or labels on [0, 1]: a number's place between its bounds. A probability is one."""
        if self.label.bounds is None:
            return values
        low, high = self.label.bounds
        return (values - low) / (high - low)

    @property
    def key(self) -> str:
        """The entity's key column in spine, feature views and label table."""
        return f"{self.entity}_id"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical spec: two spellings of the same promise have the same digest."""
        return _digest(self.model_dump(mode="json", by_alias=True))

    @property
    def recipe(self) -> str:
        """SHA-256 of the parts that make a model: another gate or drift policy does not make another model."""
        return _digest(self.model_dump(mode="json", by_alias=True, include=RECIPE))


def unfit(label: Label, part: Any) -> None:
    """Raises ValueError where a part of a spec is not for a label of this kind."""
    number = label.bounds is not None
    if isinstance(part, Estimator | Light):
        wanted = {
            Estimator: ("xgboost.XGBClassifier", "xgboost.XGBRegressor"),
            Light: ("sklearn.linear_model.LogisticRegression", "sklearn.linear_model.Ridge"),
        }[type(part)][number]
        if part.class_ != wanted:
            said = "a number (label.bounds)" if number else "a yes or no (no label.bounds)"
            raise ValueError(f"the label is {said}, so class is {wanted}, not {part.class_}")
    elif isinstance(part, GatePolicy):
        if number and (part.metric != "absolute_error" or part.cost is not None):
            raise ValueError("the label is a number (label.bounds), so write metric: absolute_error and no cost")
        if not number and part.metric == "absolute_error":
            raise ValueError("the metric absolute_error needs label.bounds, like bounds: [0, 100]")
    elif isinstance(part, Fallback):
        low, high = label.bounds or (0.0, 1.0)
        if not low <= part.safe_default <= high:
            within = "label.bounds" if number else "[0, 1], it is a probability"
            raise ValueError(f"safe_default is {part.safe_default:g}, which is not within {within}")


RECIPE = {"name", "entity", "source", "prediction", "label", "estimator", "light"}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def feature_key(view: str) -> str:
    """The key column of a feature view: `ftr_caller__history` is keyed by `caller_id`."""
    return f"{view.removeprefix('ftr_').split('__', 1)[0]}_id"


def load(folder: Path) -> Spec:
    """The spec in `folder`/spec.yaml. Raises BadInput with file and line when it does not hold."""
    path = folder / "spec.yaml"
    try:
        node, content = read_yaml(path)
    except FileNotFoundError:
        raise BadInput(f"There is no model '{folder.name}': {path} does not exist.") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}:1: a spec is a mapping that begins with 'entity:', see another model's spec.yaml.")
    if "name" in content:
        raise BadInput(f"{path}:{_line(node, ('name',))}: name: the folder is the name; remove this line.")
    try:
        return Spec(name=folder.name, **{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise BadInput(problems(path, node, error)) from None


def load_portfolio(models: Path) -> Portfolio:
    """What `models`/portfolio.yaml says for all models; the defaults without it. Raises BadInput with file and line."""
    path = models / "portfolio.yaml"
    try:
        node, content = read_yaml(path)
    except FileNotFoundError:
        return Portfolio()
    if content is not None and not isinstance(content, dict):
        raise BadInput(f"{path}:1: this is a mapping like 'budget: {{false_retrains_per_model_year: 1}}'.")
    try:
        return Portfolio(**{str(key): value for key, value in (content or {}).items()})
    except ValidationError as error:
        raise BadInput(problems(path, node, error)) from None


def load_all(models: Path) -> tuple[Spec, ...]:
    """Every spec under `models`, sorted by name. Raises BadInput at the first that does not hold."""
    if not models.is_dir():
        raise BadInput(f"There is no models folder at {models}; set TILTYARD_MODELS or create it.")
    return tuple(load(path.parent) for path in sorted(models.glob("*/spec.yaml")))


def portfolio(settings: Settings) -> tuple[Spec, ...]:
    """The models that run here: those whose source is active, sorted by name."""
    return tuple(spec for spec in load_all(settings.models) if spec.source in settings.sources)


def find(models: Path, name: str) -> Spec:
    """The spec of one model by name. Raises BadInput, naming the models there are."""
    proper = re.fullmatch(r"[a-z][a-z0-9_]*", name)
    if not proper or not (models / name / "spec.yaml").exists():
        if proper and (models / name).is_dir():
            raise BadInput(f"There is no model '{name}' yet: {models / name} has no spec.yaml; write it.")
        known = ", ".join(sorted(path.parent.name for path in models.glob("*/spec.yaml"))) or "none"
        raise BadInput(f"There is no model '{name}'; the models are: {known}.")
    return load(models / name)


def json_schema() -> dict[str, Any]:
    """JSON schema of spec.yaml, for editors (the name comes from the folder and is left out)."""
    schema = Spec.model_json_schema(by_alias=True)
    schema["properties"].pop("name")
    schema["required"] = [field for field in schema["required"] if field != "name"]
    return schema


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it is there: a hundred specs in a tenth of the time."""


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """A YAML file with the places of its parts. Raises BadInput with the line when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.compose(text, Loader=_LOADER), yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInput(f"{where}: not readable as YAML ({getattr(error, 'problem', None) or error}).") from None


def problems(path: Path, node: yaml.Node | None, error: ValidationError, under: tuple[str, ...] = ()) -> str:
    """What is wrong in a YAML file, each with its line. `under`: where in the file the validated part lies."""
    found = [{**detail, "loc": (*under, *detail["loc"])} for detail in error.errors()[:5]]
    return "; ".join(_problem(path, node, detail) for detail in found)


def _problem(path: Path, node: yaml.Node | None, detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "spec"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown field; is it a typo?"
    elif detail["type"] == "missing":
        message = "this field is missing"
    elif detail["type"] == "string_pattern_mismatch":
        message = f"{detail['input']!r} is no name for it; {_spelled(detail['loc'])}"
    return f"{path}:{_line(node, detail['loc'])}: {where}: {message}"


def _spelled(loc: tuple[Any, ...]) -> str:
    """How a name is written there."""
    forms = {"spine": "spn_<what>", "features": "ftr_<entity>__<topic>", "popular": "pop_<what>", "table": "lbl_<what>"}
    form = next((forms[part] for part in loc if part in forms), None)
    return f"write {form}, in lower case" if form else "write lower-case letters, digits and underscores"


def _line(node: yaml.Node | None, loc: tuple[Any, ...]) -> int:
    """The line of the deepest part of `loc` that the YAML text has."""
    line = node.start_mark.line + 1 if node else 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
