"""The kinds of label, and all that differs between them. Pure: numbers and words, no file and no clock.

A label is a yes or no (`Binary`), a number within bounds (`Bounded`) or one of several classes (`Classes`). A kind says
how its label is read in SQL and in a frame, what a score is and what it loses by, which figures are measured and what
they are called, which loss learns it, how a model's margin becomes a score, and which words stand in plots and texts.
Everything else in the library asks `spec.target` and does not care which kind it has. A fourth kind is one more class
here and its place in `KINDS`. This module is longer than others so that whoever writes that class has all of it before
them.

A score is one number, or a distribution: one probability per class. Scores of rows are therefore (rows, *shape), with
`shape` () or (classes,), and whoever needs one number per row asks for `single`, `parts` or `paired`.

XGBoost, scikit-learn and ONNX are named here, never imported: a DAG file is parsed with this module.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from pydantic import JsonValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Values = NDArray[Any]
else:
    Floats = Values = Any

    class _Numpy:
        """numpy, imported for its weight when it is first used: specs are read whenever DAGs are parsed."""

        def __getattr__(self, name: str) -> Any:
            import numpy

            value = getattr(numpy, name)
            setattr(self, name, value)  # found without a detour from now on
            return value

    np = _Numpy()
"""Labels as a trainer takes them: booleans, or float64."""
Interval = tuple[float, float]
NOT_LEARNED: Interval = (-1e300, 1e300)
"""Bounds of a number before any are known: no label lies beyond them, and nothing is decided on their scale."""
Scaled = TypeVar("Scaled", float, Floats)
Default = float | Mapping[str, float]
"""What a spec may write as its safe default: a score, or a probability for each class."""

CLIP = 1e-6
"""Scores are moved this far from 0 and 1 before their logarithm is taken: log loss stays finite."""
LOSS_CLIP = 1e-3
"""The same for the log loss that decides (`losses`): its largest value, 6.9 nats, is what it is divided by. A smaller
clip would let one row in a million set the scale on which the others count."""

SHARES = "cast(cast(scores as json) as map(varchar, double))"
"""SQL of a distribution as it is written down, class → probability."""


class LabelFields(Protocol):
    """What a spec says of its label, as far as it tells the kind (spec.Label)."""

    @property
    def kind(self) -> str | None: ...
    @property
    def positive(self) -> bool: ...
    @property
    def bounds(self) -> Interval | None: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...


class CostMatrix(Protocol):
    """What a decision costs (spec.Cost)."""

    @property
    def false_positive(self) -> float: ...
    @property
    def false_negative(self) -> float: ...
    @property
    def true_positive(self) -> float: ...
    @property
    def true_negative(self) -> float: ...
    @property
    def threshold(self) -> float | None: ...


class Said(NamedTuple):
    """What a row is answered with."""

    score: float
    """The score; of a distribution, the probability of the likeliest class."""
    shares: dict[str, float] | None
    """Class → probability; None where a score is one number."""

    @property
    def likeliest(self) -> str | None:
        """The likeliest class, of several alike the first; None where a score is one number."""
        return max(self.shares, key=self.shares.__getitem__) if self.shares else None


class Drawn(NamedTuple):
    """The words of the plot of labels against scores on held-out rows."""

    title: str
    """Before "on 1,234 held-out rows"."""
    label: str
    """What the vertical axis shows, with what its bars span."""


class Learner(NamedTuple):
    """How boosted trees learn the label."""

    objective: str
    """XGBoost's."""
    eval_metric: str
    """XGBoost's; empty where it has none of this loss, and the mean of `row_losses` is taken."""
    loss: str = "squared_error"
    """Of scikit-learn's histogram-based boosting."""


@dataclass(frozen=True)
class Target(ABC):
    """A kind of label, with what one model's spec says of it."""

    bounds: Interval
    """The least and the largest score, in the label's unit; [0, 1] of a probability."""

    # -- what a spec may say ------------------------------------------------------------------

    kind: ClassVar[str]
    """The word that spec.yaml may write as label.kind."""
    fields: ClassVar[frozenset[str]]
    """Fields of a spec's label that this kind has and another may lack."""
    described: ClassVar[str]
    """What the label is, for a sentence that begins "the label is"."""
    light_class: ClassVar[str]
    """Import path of the light twin's linear model."""
    metrics: ClassVar[Mapping[str, str]]
    """Metrics that the gate may decide on, each with its words."""
    priced_by: ClassVar[str] = "gate.error_cost"
    """Where a spec says what errors cost."""
    needs: ClassVar[str]
    """What a spec has to write so that its label is of this kind, for a sentence that ends "needs …"."""
    default_within: ClassVar[str]
    """Where a safe default has to lie, for a sentence that ends "is not within …"."""

    # -- what is measured ---------------------------------------------------------------------

    measure: ClassVar[str]
    """The figure that is shown of every version, whatever the gate decides on: the name of its column."""
    figure: ClassVar[str]
    """The same in words, as short as a line of text wants it."""
    figure_title: ClassVar[str]
    """The same in words, for an axis or a table's head."""
    more_figures: ClassVar[tuple[str, ...]]
    """Names of the figures that an evaluation has beside the measure."""
    base: ClassVar[str]
    """Name of the labels' mean, for a version's facts."""
    headline: ClassVar[Mapping[str, str]]
    """Those of `more_figures` that stand in one line with the measure, each with its words."""
    columns: ClassVar[Mapping[str, str]]
    """Those of `more_figures` that have a column of a page's table beside the measure, each with its head."""
    status_figures: ClassVar[tuple[str, ...]]
    """Columns of ops.evaluation that `status` shows beside the measure."""
    inestimable: ClassVar[str | None]
    """Why performance cannot be estimated from scores alone. None: it can, a score promises its own loss."""
    has_positives: ClassVar[bool]
    """Are there positive and negative rows, whose labels arrive each in their own time?"""
    more_counts: ClassVar[tuple[str, ...]]
    """Counts of labels beside matured, missing, immature and early: `outside` are those beyond the bounds, or of no
    class."""
    outside_head: ClassVar[str]
    """What labels that count as outside are called, beside their number."""
    outside_told: ClassVar[str]
    """What a label that counts as outside is, after their number."""
    miscalibrated: ClassVar[str]
    """What the gate says of a distance between scores and labels, before the number."""

    # -- what learns it -----------------------------------------------------------------------

    learner: ClassVar[Learner]
    is_classified: ClassVar[bool]
    """Is it learned by a classifier, or by a regressor?"""
    dtype: ClassVar[str]
    """Of labels in a frame that a person or an evaluation reads."""
    too_few: ClassVar[str]
    """Which rows a block of the split has too few of, after their number and "rows"."""
    mlflow_type: ClassVar[str]
    """MLflow's word for the model."""
    light_output: ClassVar[str]
    """Name of the output of the light twin's ONNX graph."""
    link: ClassVar[str | None]
    """The ONNX operator that turns a sum of log-odds into a score. None: the sum is the score."""
    margin_unit: ClassVar[str]
    """What a model sums in, for the axis of SHAP values."""
    stored: ClassVar[str]
    """Column of ops.prediction, ops.request and ops.request_shadow that a score is read from."""
    score_dtype: ClassVar[str]
    """Of that column in pandas."""
    answered: ClassVar[Mapping[str, str]]
    """Columns of text that a night's answers have beside the score, where they are written out, each with its SQL."""
    distance: ClassVar[str]
    """What a distance between two scores is a share of, after the number."""

    # -- words of pages -----------------------------------------------------------------------

    plot: ClassVar[Drawn]
    axis: ClassVar[Interval | None]
    """Ends of the score's axis. None: those of the scores that are drawn."""
    label_axis: ClassVar[str]
    """What a calibration curve shows beside the mean score."""
    wrong_label: ClassVar[str]
    """What a label that cannot be evaluated is not, after "a label"."""

    @classmethod
    @abstractmethod
    def of(cls, label: LabelFields) -> Target:
        """From a spec's label. Raises ValueError when its fields do not make one of this kind."""

    @classmethod
    @abstractmethod
    def from_json(cls, body: Mapping[str, JsonValue]) -> Target:
        """From what `to_json` gave."""

    @abstractmethod
    def to_json(self) -> dict[str, JsonValue]:
        """What a version and an evidence page keep of its kind; `read` makes a target of it again."""

    @property
    def is_learned(self) -> bool:
        """Whether the bounds are known; else the first training learns them (`learned`)."""
        return self.bounds != NOT_LEARNED

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one score: () of a number, (classes,) of a distribution."""
        return ()

    def learned(self, labels: Values, default: Default) -> Target:
        """With bounds of these (rows,) labels, and wide enough for the safe default; itself where they are known."""
        return self

    @property
    def width(self) -> float:
        """How far two scores can lie from each other, in the label's unit."""
        return self.bounds[1] - self.bounds[0]

    @property
    def interval(self) -> tuple[str, str, str]:
        """Columns of the measure and of the ends of its interval."""
        return self.measure, f"{self.measure}_low", f"{self.measure}_high"

    # -- a spec's parts -----------------------------------------------------------------------

    def check_fields(self, given: Set[str]) -> None:
        """`given`: names of the label's fields that say something. Raises ValueError for one of another kind."""
        if strange := sorted(given & (FIELDS - self.fields)):
            raise ValueError(f"label.{strange[0]} is not for a label that is {self.described}; take one of the two out")

    def check_class(self, name: str, fitting: str) -> None:
        """Raises ValueError when a spec names another class than the one that fits."""
        if name != fitting:
            raise ValueError(f"the label is {self.described}, so class is {fitting}, not {name}")

    @abstractmethod
    def check_gate(self, metric: str, cost: CostMatrix | None) -> None:
        """Raises ValueError when the gate cannot decide by this metric."""

    def check_error_cost(self, cost: float | None) -> None:
        """Raises ValueError when errors of this kind have their price elsewhere."""
        if cost is not None and self.priced_by != "gate.error_cost":
            raise ValueError(f"the label is {self.described}, so write {self.priced_by} and no gate.error_cost")

    def check_default(self, value: Default) -> None:
        """Raises ValueError when a safe default is no score."""
        if isinstance(value, Mapping):
            raise ValueError(f"safe_default has a number for each class, and the label is {self.described}; write one")
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise ValueError(f"safe_default is {value:g}, which is not within {self.default_within}")

    def unlike(self, trained: Target) -> str | None:
        """Why scores of a version that was trained on a label of the kind `trained` are none of this label, as a
        sentence goes on after "it"; None where they are. Bounds may move: a score beyond them is refused by itself."""
        return None if trained.shape == self.shape else "was trained on a label of another kind"

    @abstractmethod
    def wrong_type(self, data_type: str | None) -> str | None:
        """What is wrong with the declared type of a label table's column, after "is given"; None when it fits."""

    # -- labels -------------------------------------------------------------------------------

    @abstractmethod
    def sql(self, column: str, *, clipped: bool = True) -> str:
        """SQL of a label as the rails take it. What is beyond the bounds counts as the nearer one, unless not
        `clipped`. NULL where no label that counts has come."""

    def sql_outside(self, column: str) -> str:
        """SQL: is the label beyond the bounds?"""
        return "false"

    @abstractmethod
    def sql_positive(self, column: str) -> str:
        """SQL of the class whose arrival is watched; true where there are no classes."""

    @abstractmethod
    def sql_half(self, column: str) -> str:
        """SQL of two halves that a change which tells the label would tell apart."""

    def sql_told(self, column: str) -> str:
        """SQL of a label as a person is told it, whether it counts or not."""
        return self.sql(column, clipped=False)

    @abstractmethod
    def plain(self, label: Any) -> bool | float | str:
        """What `sql_told` gave as JSON has it."""

    @abstractmethod
    def of_training(self, values: Values) -> tuple[Values, int | None]:
        """(rows,) labels of a training frame as trainers take them, and how many of them lay beyond the bounds; None
        where labels have none."""

    def base_figure(self, labels: Values) -> float:
        """The figure `base` of (rows,) labels of a training frame."""
        return float(labels.mean())

    def fewest(self, labels: Values) -> int:
        """How many of (rows,) labels of a training frame there are to tell from the others: those that are not the
        commonest."""
        sizes = np.unique(labels, return_counts=True)[1]
        return int(sizes.sum() - sizes.max()) if len(sizes) else 0

    def named_labels(self, labels: Floats) -> Values:
        """(rows,) labels as a profile counts them: numbers, or texts where no number stands for them."""
        return labels

    def groups(self, labels: Floats) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
        """Groups of rows by their labels on which the gate lets no challenger be worse: the name of each, and which of
        the (rows,) labels are of it."""
        return ()

    def questions(self, labels: Values) -> tuple[Values, ...]:
        """The labels of a training frame as the search for leakage takes them: each (rows,), a yes or no or a
        number."""
        return (labels,)

    @abstractmethod
    def are_labels(self, values: Floats) -> NDArray[np.bool_]:
        """Which of (rows,) values can be a label."""

    # -- scores -------------------------------------------------------------------------------

    @abstractmethod
    def within(self, values: Floats) -> Floats:
        """(rows,) what a model says, as scores. A model may step over the bounds a little, where its kind allows: the
        nearer one is meant then. What is not finite is no score, and stays none."""

    @abstractmethod
    def scaled(self, values: Scaled) -> Scaled:
        """Scores or labels on [0, 1]: their place between the bounds."""

    def nothing(self, rows: int) -> Floats:
        """(rows, *shape) of no score."""
        return np.full((rows, *self.shape), np.nan)

    def constant(self, default: Default, rows: int) -> Floats:
        """(rows, *shape) of the safe default."""
        return np.full(rows, default)

    def default_told(self, default: Default) -> str:
        """A safe default in a sentence."""
        return f"{default:g}"

    def is_scored(self, scores: Floats) -> NDArray[np.bool_]:
        """Which of (rows, *shape) are a score: finite."""
        return np.isfinite(scores)

    def usable(self, values: Floats) -> NDArray[np.bool_]:
        """Which of (rows, *shape) that a version gave can be used: a number within the bounds."""
        low, high = self.bounds
        return (values >= low) & (values <= high)

    def where(self, inside: NDArray[np.bool_], scores: Floats, others: Floats | None = None) -> Floats:
        """(rows, *shape) the scores of the rows that are `inside`, and elsewhere those of `others`, or none."""
        chosen = inside.reshape(-1, *(1 for _ in self.shape))
        return np.where(chosen, scores, np.nan if others is None else others)

    def single(self, scores: Floats) -> Floats:
        """(rows,) what is shown of a score where one number is."""
        return scores

    def parts(self, scores: Floats) -> tuple[Floats, ...]:
        """The numbers that a score consists of, each (rows,)."""
        return (scores,)

    def paired(self, scores: Floats, label: Values) -> tuple[Floats, Values]:
        """(rows,) a number of each score, and what it should be in the mean: what calibration compares."""
        return scores, label

    def named_scores(self, scores: Floats) -> Values:
        """(rows,) scores as a profile counts them: numbers, or texts where no number stands for them."""
        return scores

    def picked(self, output: Floats) -> Floats:
        """A model's output (rows, columns) as scores, (rows, *shape): the last column, of a yes or no the yes."""
        return output[:, -1]

    def said(self, score: Any) -> Said:
        """One row's score as an answer has it."""
        return Said(float(score), None)

    def told(self, scores: Floats) -> list[str | None]:
        """(rows,) distributions as they are written down: JSON, class → probability. None where a score is one
        number, which is written as it is, and where there is no score."""
        return [None] * len(scores)

    def column(self, scores: Floats) -> Any:
        """Scores as a frame of pandas holds them in one column."""
        return scores

    def scores(self, column: Any) -> Floats:
        """(rows, *shape) of a column that `stored`, or `column`, has given; NaN where there is no score."""
        return np.asarray(column, dtype=np.float64)

    @abstractmethod
    def answers(self, model: Any, matrix: Any) -> Floats:
        """What a fitted model says of encoded rows, before `within`: (rows, *shape)."""

    @abstractmethod
    def margins(self, scores: Floats) -> Floats:
        """Scores on the scale on which a linear model adds its terms up."""

    @abstractmethod
    def score(self, margin: float) -> float:
        """The score of a sum of a linear model's terms: the inverse of `margins`, within the bounds."""

    # -- losses and figures -------------------------------------------------------------------

    @abstractmethod
    def row_losses(self, score: Floats, label: Floats | Values) -> Floats:
        """(rows,) what each row loses by as it is shown (`measure`); NaN where either is missing."""

    def mistakes(self, score: Floats, label: Floats) -> Floats:
        """(rows,) by how much each row is wrong, as `gate.error_cost` prices it; none is more than `largest_loss`."""
        return self.row_losses(score, label)

    @abstractmethod
    def losses(self, metric: str, score: Floats, label: Floats, cost: CostMatrix | None = None) -> Floats:
        """What each row loses by as the gate counts it, scaled to [0, 1] so that a bound on differences of losses is
        one on rows. Raises ValueError for a metric of another kind, or for a cost without its matrix."""

    @property
    @abstractmethod
    def largest_loss(self) -> float:
        """The largest of `row_losses`."""

    @abstractmethod
    def figures(self, score: Floats, label: Floats) -> dict[str, float | None]:
        """`more_figures` of (rows,) scores and labels. None where the rows do not carry one."""

    @abstractmethod
    def resampled(self, score: Floats, label: Values, weights: NDArray[np.int64]) -> dict[str, Floats]:
        """The measure, and the figures that a held-out part is measured by, once per row of `weights`.

        `weights`: (resamples, rows), how often a row was drawn."""

    # -- training -----------------------------------------------------------------------------

    @abstractmethod
    def light_arguments(self, penalty: float) -> dict[str, float]:
        """Arguments of the light twin's class; `penalty` is the inverse one, larger is weaker."""

    @abstractmethod
    def errors(self, by_round: Floats) -> Floats:
        """The measure after each boosting round, from XGBoost's own figure."""

    @abstractmethod
    def spread(self, labels: Floats) -> Interval:
        """What the bar of a group of rows spans in the plot of labels against scores: its ends."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the evidence page says under its calibration curve."""


@dataclass(frozen=True)
class Binary(Target):
    """A yes or no. It is scored by the probability of the positive label."""

    bounds: Interval = field(default=(0.0, 1.0), init=False)
    positive: bool = True

    kind = "yes_or_no"
    fields = frozenset({"positive"})
    described = "a yes or no (no label.bounds)"
    priced_by = "gate.cost"
    light_class = "sklearn.linear_model.LogisticRegression"
    metrics: ClassVar[Mapping[str, str]] = {
        "brier": "Brier score",
        "log_loss": "log loss, clipped and scaled to [0, 1]",
        "cost": "cost, scaled to [0, 1]",
    }
    needs = "a label without bounds"
    default_within = "[0, 1], it is a probability"
    measure = "brier"
    figure = "Brier"
    figure_title = "Brier score"
    more_figures = ("log_loss", "auc", "positive_rate")
    base = "positive_rate"
    headline: ClassVar[Mapping[str, str]] = {"auc": "AUC"}
    columns: ClassVar[Mapping[str, str]] = {"log_loss": "log loss", "auc": "AUC"}
    status_figures = ("log_loss", "auc", "positive_rate")
    inestimable = None
    has_positives = True
    more_counts = ()
    outside_head = outside_told = ""
    miscalibrated = "Scores are off the observed share by"
    # the error is that of the probability: the root of the Brier score, which the gate decides on
    learner = Learner("binary:logistic", "rmse", "log_loss")
    is_classified = True
    dtype = "int64"
    stored = "score"
    score_dtype = "float64"
    answered: ClassVar[Mapping[str, str]] = {}
    too_few = "of one class"
    mlflow_type = "classifier"
    light_output = "positive"
    link = "Sigmoid"
    margin_unit = "log-odds"
    distance = "in probability"
    plot = Drawn("Calibration", "observed share")
    axis = (0.0, 1.0)
    label_axis = "share of positive labels"
    wrong_label = "of 0 or 1"

    @classmethod
    def of(cls, label: LabelFields) -> Binary:
        return cls(positive=label.positive)

    @classmethod
    def from_json(cls, body: Mapping[str, JsonValue]) -> Binary:
        return cls()

    def to_json(self) -> dict[str, JsonValue]:
        return {}

    def check_gate(self, metric: str, cost: CostMatrix | None) -> None:
        if metric not in self.metrics:
            raise ValueError(f"the metric {metric} needs {of_metric(metric).needs}")

    def wrong_type(self, data_type: str | None) -> str | None:
        return None if data_type == "boolean" else "no bounds, but its label is a number"

    def sql(self, column: str, *, clipped: bool = True) -> str:
        return f"{column} = {str(self.positive).lower()}"

    def sql_positive(self, column: str) -> str:
        return self.sql(column)

    def sql_half(self, column: str) -> str:
        return self.sql(column)

    def plain(self, label: Any) -> bool:
        return bool(label)

    def of_training(self, values: Values) -> tuple[Values, int | None]:
        return values.astype(bool), None

    def are_labels(self, values: Floats) -> NDArray[np.bool_]:
        return np.isin(values, (0.0, 1.0))

    def within(self, values: Floats) -> Floats:
        return values

    def scaled(self, values: Scaled) -> Scaled:
        return values

    def answers(self, model: Any, matrix: Any) -> Floats:
        scores: Floats = model.predict_proba(matrix)[:, 1].astype(np.float64)
        return scores

    def margins(self, scores: Floats) -> Floats:
        logits: Floats = np.log(scores) - np.log1p(-scores)
        return logits

    def score(self, margin: float) -> float:
        if margin >= 0:
            return 1 / (1 + math.exp(-margin))
        odds = math.exp(margin)
        return odds / (1 + odds)

    def row_losses(self, score: Floats, label: Floats | Values) -> Floats:
        """Squared error, in [0, 1] (Brier 1950)."""
        losses: Floats = (score - label) ** 2
        return losses

    def losses(self, metric: str, score: Floats, label: Floats, cost: CostMatrix | None = None) -> Floats:
        """`brier`: squared error. `log_loss`: nats, scores clipped by LOSS_CLIP, divided by the largest possible.
        `cost`: the entry of the matrix that decision and label meet in, divided by its largest; a row is acted on when
        its score reaches `decision_threshold`."""
        paid: Floats
        if metric == "brier":
            paid = self.row_losses(score, label)
        elif metric == "log_loss":
            clipped = np.clip(score, LOSS_CLIP, 1 - LOSS_CLIP)
            paid = np.where(label > 0, np.log(clipped), np.log1p(-clipped)) / np.log(LOSS_CLIP)
        elif metric != "cost":
            raise ValueError(f"the metric {metric} needs {of_metric(metric).needs}")
        elif cost is None:
            raise ValueError("the metric cost needs a cost matrix, spec's gate.cost")
        else:
            acted = score >= decision_threshold(cost)
            acting = np.where(label > 0, cost.true_positive, cost.false_positive)
            waiting = np.where(label > 0, cost.false_negative, cost.true_negative)
            largest = max(cost.false_positive, cost.false_negative, cost.true_positive, cost.true_negative)
            paid = np.where(acted, acting, waiting) / largest
        return paid

    @property
    def largest_loss(self) -> float:
        return 1.0

    def figures(self, score: Floats, label: Floats) -> dict[str, float | None]:
        return {"log_loss": log_loss(score, label), "auc": auc(score, label), "positive_rate": float(label.mean())}

    def resampled(self, score: Floats, label: Values, weights: NDArray[np.int64]) -> dict[str, Floats]:
        """Brier score, log loss and AUC. AUC as the Mann-Whitney statistic with ties counted half: Hanley and McNeil
        (1982), Radiology 143:29-36."""
        rows = len(label)
        clipped = np.clip(score, 1e-7, 1 - 1e-7)
        return {
            "brier": weights @ (score - label) ** 2 / rows,
            "log_loss": weights @ -np.where(label, np.log(clipped), np.log(1 - clipped)) / rows,
            "auc": _weighted_auc(label, score, weights),
        }

    def light_arguments(self, penalty: float) -> dict[str, float]:
        return {"C": penalty, "max_iter": 300}

    def errors(self, by_round: Floats) -> Floats:
        squares: Floats = by_round**2
        return squares

    def spread(self, labels: Floats) -> Interval:
        """The 95 % interval of the share of positives."""
        return wilson(labels)

    @property
    def caption(self) -> str:
        return (
            "Share of positive labels against the mean score in ten bins, on the matured rows; the larger a point, the "
            "more rows. On the diagonal a score of 0.3 comes true three times in ten."
        )


@dataclass(frozen=True)
class Bounded(Target):
    """A number in its own unit, of which the least and the largest that count are known: the spec says them, or the
    labels of the first training do. A label beyond them counts as the nearer one. It is scored by what it is expected
    to be, and loses by its absolute error."""

    kind = "number"
    fields = frozenset({"bounds"})
    described = "a number (label.bounds, or kind: number)"
    light_class = "sklearn.linear_model.Ridge"
    metrics: ClassVar[Mapping[str, str]] = {"absolute_error": "absolute error, over the width of the label's bounds"}
    needs = "label.bounds, like bounds: [0, 100], or kind: number"
    default_within = "label.bounds"
    measure = "absolute_error"
    figure = "absolute error"
    figure_title = "absolute error"
    more_figures = ()
    base = "mean_label"
    headline: ClassVar[Mapping[str, str]] = {}
    columns: ClassVar[Mapping[str, str]] = {}
    status_figures = ("mean_score",)
    inestimable = "a number does not say how far off it is"
    has_positives = False
    more_counts = ("outside",)
    outside_head = "labels beyond the bounds"
    outside_told = "beyond the label's bounds, counted as the nearer one"
    miscalibrated = "Scores are off the mean label, over the width of its bounds, by"
    learner = Learner("reg:absoluteerror", "mae", "absolute_error")
    is_classified = False
    dtype = "float64"
    stored = "score"
    score_dtype = "float64"
    answered: ClassVar[Mapping[str, str]] = {}
    too_few = "whose label is not its commonest one"
    mlflow_type = "regressor"
    light_output = "variable"
    link = None
    margin_unit = "in the label's unit"
    distance = "of the width of label.bounds"
    plot = Drawn("Label against score", "label: mean and middle 80 %")
    axis = None
    label_axis = "mean label"
    wrong_label = "that is a number"

    def __post_init__(self) -> None:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds go from low to high, like [0, 100], not {list(self.bounds)}")

    @classmethod
    def of(cls, label: LabelFields) -> Bounded:
        return cls(NOT_LEARNED if label.bounds is None else label.bounds)

    @classmethod
    def from_json(cls, body: Mapping[str, JsonValue]) -> Bounded:
        bounds = body["bounds"]
        if not isinstance(bounds, list):
            raise ValueError(f"bounds are a list of two numbers, not {bounds!r}")
        low, high = (float(str(end)) for end in bounds)
        return cls((low, high))

    def to_json(self) -> dict[str, JsonValue]:
        low, high = self.bounds
        return {"bounds": [low, high]}

    def learned(self, labels: Values, default: Default) -> Bounded:
        """A tenth of the width beyond the 1st and the 99th percentile, not below 0 where no label is; where these are
        one, the least and the largest label."""
        if self.is_learned or isinstance(default, Mapping):
            return self
        numbers = labels.astype(np.float64)
        low, high = (float(value) for value in np.percentile(numbers, (1, 99)))
        if low == high:
            low, high = float(numbers.min()), float(numbers.max())
        low, high = number_bounds(low, high)
        low, high = min(low, default), max(high, default)
        return replace(self, bounds=(low, high if high > low else low + 1))

    def check_fields(self, given: Set[str]) -> None:
        if "positive" in given:
            raise ValueError("bounds say that the label is a number, which has no positive; take one of the two out")
        super().check_fields(given)

    def check_gate(self, metric: str, cost: CostMatrix | None) -> None:
        if metric not in self.metrics or cost is not None:
            raise ValueError(f"the label is {self.described}, so write metric: {' or '.join(self.metrics)} and no cost")

    def wrong_type(self, data_type: str | None) -> str | None:
        return "bounds, but its label is a boolean" if data_type == "boolean" else None

    def sql(self, column: str, *, clipped: bool = True) -> str:
        """What is no finite number has not come."""
        low, high = self.bounds
        number = f"{column}::double"
        value = f"least(greatest({number}, {low}), {high})" if clipped else number
        return f"case when isfinite({number}) then {value} end"

    def sql_outside(self, column: str) -> str:
        low, high = self.bounds
        return f"coalesce({column}::double < {low} or {column}::double > {high}, false)"

    def sql_positive(self, column: str) -> str:
        return "true"

    def sql_half(self, column: str) -> str:
        """A change that tells the label tells the large ones from the small ones."""
        return f"{column} > median({column}) over ()"

    def plain(self, label: Any) -> float:
        return float(label)

    def of_training(self, values: Values) -> tuple[Values, int | None]:
        low, high = self.bounds
        numbers = values.astype(np.float64)
        outside = int(((numbers < low) | (numbers > high)).sum())
        return np.clip(numbers, low, high), outside

    def are_labels(self, values: Floats) -> NDArray[np.bool_]:
        return np.isfinite(values)

    def within(self, values: Floats) -> Floats:
        return np.where(np.isfinite(values), np.clip(values, *self.bounds), np.nan)

    def scaled(self, values: Scaled) -> Scaled:
        low, high = self.bounds
        return (values - low) / (high - low)

    def answers(self, model: Any, matrix: Any) -> Floats:
        scores: Floats = model.predict(matrix).astype(np.float64)
        return scores

    def margins(self, scores: Floats) -> Floats:
        return scores

    def score(self, margin: float) -> float:
        return min(max(margin, self.bounds[0]), self.bounds[1])

    def row_losses(self, score: Floats, label: Floats | Values) -> Floats:
        """|score - label| in the label's own unit, after both were moved to the nearer bound where they lie beyond:
        none is larger than the bounds are wide."""
        errors: Floats = np.abs(np.clip(score, *self.bounds) - np.clip(label, *self.bounds))
        return errors

    def losses(self, metric: str, score: Floats, label: Floats, cost: CostMatrix | None = None) -> Floats:
        """`absolute_error`: over the width of the bounds, beyond which neither score nor label counts."""
        if metric not in self.metrics:
            raise ValueError(f"the metric {metric} needs {of_metric(metric).needs}")
        shares: Floats = self.row_losses(score, label) / self.largest_loss
        return shares

    @property
    def largest_loss(self) -> float:
        return self.width

    def figures(self, score: Floats, label: Floats) -> dict[str, float | None]:
        return {}

    def resampled(self, score: Floats, label: Values, weights: NDArray[np.int64]) -> dict[str, Floats]:
        return {self.measure: weights @ self.row_losses(score, label) / len(label)}

    def light_arguments(self, penalty: float) -> dict[str, float]:
        return {"alpha": 1 / penalty}

    def errors(self, by_round: Floats) -> Floats:
        return by_round

    def spread(self, labels: Floats) -> Interval:
        """The middle 80 % of the labels."""
        return float(np.quantile(labels, 0.1)), float(np.quantile(labels, 0.9))

    @property
    def caption(self) -> str:
        low, high = self.bounds
        return (
            "Mean label against the mean score in ten bins, on the matured rows, both as a place between the label's "
            f"bounds ({low:g} and {high:g}); the larger a point, the more rows."
        )


@dataclass(frozen=True)
class Classes(Target):
    """One of several named texts. It is scored by a distribution, the probability of each class in the spec's order,
    and loses by half its squared distance from the class that came.

    In numbers a label is the place of its class. A text that is no class is no label: it is counted as outside, and its
    row stays without a truth.
    """

    bounds: Interval = field(default=(0.0, 1.0), init=False)
    classes: tuple[str, ...] = ()

    kind = "classes"
    fields = frozenset({"classes"})
    described = "one of several classes (label.classes)"
    light_class = "sklearn.linear_model.LogisticRegression"
    metrics: ClassVar[Mapping[str, str]] = {
        "brier": "Brier score",
        "log_loss": "log loss, clipped and scaled to [0, 1]",
    }
    needs = "label.classes, like classes: [early, on_time, late]"
    default_within = "the distributions over label.classes"
    measure = "class_brier"
    figure = "Brier over classes"
    figure_title = "Brier score over classes, halved"
    more_figures = ("log_loss", "accuracy")
    base = "commonest_class"
    headline: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy"}
    columns: ClassVar[Mapping[str, str]] = {"log_loss": "log loss", "accuracy": "accuracy"}
    status_figures = ("log_loss", "accuracy")
    inestimable = "an estimate takes one number per row, and a distribution over classes has several"
    has_positives = False
    more_counts = ("outside",)
    outside_head = "labels of no class"
    outside_told = "of none of the label's classes, which are no truth"
    miscalibrated = Binary.miscalibrated  # of the likeliest class: the gate knows the metric, which both kinds share
    learner = Learner("multi:softprob", "", "log_loss")
    is_classified = True
    dtype = "int64"
    stored = "scores"
    score_dtype = "object"
    answered: ClassVar[Mapping[str, str]] = {
        "class": f"map_keys({SHARES})[list_position(map_values({SHARES}), list_max(map_values({SHARES})))]",
        "scores": "scores",
    }
    too_few = "of its rarest class"
    mlflow_type = "classifier"
    light_output = "probabilities"
    link = "Softmax"
    margin_unit = "log-odds of the likeliest class"
    distance = "in probability"
    plot = Drawn("Calibration of the likeliest class", "share in which it came")
    axis = (0.0, 1.0)
    label_axis = "share of rows in which it came"
    wrong_label = "that is one of the classes"

    @classmethod
    def of(cls, label: LabelFields) -> Classes:
        if label.classes is None:
            raise ValueError(f"kind: {cls.kind} needs {cls.needs}")
        return cls(checked_classes(label.classes))

    @classmethod
    def from_json(cls, body: Mapping[str, JsonValue]) -> Classes:
        names = body.get("classes") or []
        if not isinstance(names, list):
            raise ValueError(f"classes are a list of texts, not {names!r}")
        return cls(tuple(map(str, names)))

    def to_json(self) -> dict[str, JsonValue]:
        return {"kind": self.kind, "classes": [*self.classes]}

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.classes),)

    def unlike(self, trained: Target) -> str | None:
        if trained == self:
            return None
        other = trained.to_json().get("classes")
        names = ", ".join(map(str, other)) if isinstance(other, list) else "another kind"
        return f"was trained on a label of {names}, and not of {', '.join(self.classes)}; train it again"

    def check_gate(self, metric: str, cost: CostMatrix | None) -> None:
        if metric not in self.metrics or cost is not None:
            raise ValueError(f"the label is {self.described}, so write metric: {' or '.join(self.metrics)} and no cost")

    def check_default(self, value: Default) -> None:
        like = (
            "{" + ", ".join(f"{name}: {share:g}" for name, share in zip(self.classes, _alike(self), strict=True)) + "}"
        )
        if not isinstance(value, Mapping):
            raise ValueError(
                f"safe_default is {value:g}, and the label is {self.described}: write a probability for each, like "
                f"{like}"
            )
        if lacking := [name for name in self.classes if name not in value]:
            raise ValueError(f"safe_default has no probability for the class '{lacking[0]}'; write one, like {like}")
        if strange := [name for name in value if name not in self.classes]:
            raise ValueError(f"safe_default names '{strange[0]}', which is not in label.classes; take it out")
        if wrong := [name for name, share in value.items() if not 0 <= share <= 1]:
            raise ValueError(f"safe_default says {value[wrong[0]]:g} of '{wrong[0]}'; a probability is within [0, 1]")
        if abs(math.fsum(value.values()) - 1) > 1e-6:
            raise ValueError(f"safe_default adds up to {math.fsum(value.values()):g}; probabilities add up to 1")

    def wrong_type(self, data_type: str | None) -> str | None:
        if data_type is None or data_type.split("(")[0].strip().lower() in TEXTS:
            return None
        return f"classes, but its label is a {data_type}"

    def sql(self, column: str, *, clipped: bool = True) -> str:
        """The place of the class. What is no class has not come, clipped or not."""
        places = " ".join(f"when {literal(name)} then {place}" for place, name in enumerate(self.classes))
        return f"(case cast({column} as varchar) {places} end)"

    def sql_outside(self, column: str) -> str:
        return f"coalesce(cast({column} as varchar) not in ({', '.join(map(literal, self.classes))}), false)"

    def sql_positive(self, column: str) -> str:
        return "true"

    def sql_half(self, column: str) -> str:
        """A change that tells the label tells the commonest class from the others."""
        return f"{column} = mode({column}) over ()"

    def sql_told(self, column: str) -> str:
        return f"cast({column} as varchar)"

    def plain(self, label: Any) -> str:
        return str(label)

    def of_training(self, values: Values) -> tuple[Values, int | None]:
        return values.astype(np.int64), None

    def base_figure(self, labels: Values) -> float:
        """The share of the commonest class."""
        return float(np.bincount(labels.astype(np.int64)).max() / len(labels))

    def fewest(self, labels: Values) -> int:
        """Rows of the rarest class: each has to be learned."""
        return int(np.bincount(labels.astype(np.int64), minlength=len(self.classes)).min())

    def named_labels(self, labels: Floats) -> Values:
        return self._names[np.asarray(labels).astype(np.int64)]

    def groups(self, labels: Floats) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
        """The rows of each class."""
        return tuple((f"label={name}", labels == place) for place, name in enumerate(self.classes))

    def questions(self, labels: Values) -> tuple[Values, ...]:
        """Is it this class, or another? Once per class, since the places of classes have no order."""
        return tuple((labels == place).astype(np.int64) for place in range(len(self.classes)))

    def are_labels(self, values: Floats) -> NDArray[np.bool_]:
        return np.isin(values, np.arange(len(self.classes)))

    def within(self, values: Floats) -> Floats:
        """Clipped to [0, 1] and divided by their sum, which is one but for rounding."""
        inside = np.clip(values, 0, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares: Floats = inside / inside.sum(axis=1, keepdims=True)
        return np.where(np.isfinite(values).all(axis=1, keepdims=True), shares, np.nan)

    def scaled(self, values: Scaled) -> Scaled:
        return values

    def constant(self, default: Default, rows: int) -> Floats:
        assert isinstance(default, Mapping)  # check_default has seen it
        return np.tile(np.array([default[name] for name in self.classes], dtype=np.float64), (rows, 1))

    def default_told(self, default: Default) -> str:
        assert isinstance(default, Mapping)
        return ", ".join(f"{name} {default[name]:g}" for name in self.classes)

    def is_scored(self, scores: Floats) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(scores).all(axis=1), dtype=bool)

    def usable(self, values: Floats) -> NDArray[np.bool_]:
        inside = ((values >= 0) & (values <= 1)).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-6)
        return np.asarray(inside, dtype=bool)

    def single(self, scores: Floats) -> Floats:
        """The probability of the likeliest class."""
        return scores.max(axis=1) if len(scores) else np.empty(0)

    def parts(self, scores: Floats) -> tuple[Floats, ...]:
        """The probability of each class."""
        return tuple(scores[:, place] for place in range(len(self.classes)))

    def paired(self, scores: Floats, label: Values) -> tuple[Floats, Values]:
        """The probability of the likeliest class, and whether it came (Guo et al. 2017, On calibration of modern neural
        networks, ICML)."""
        return self.single(scores), (scores.argmax(axis=1) == label).astype(np.float64)

    def named_scores(self, scores: Floats) -> Values:
        """The likeliest class."""
        return self._names[scores.argmax(axis=1)] if len(scores) else np.empty(0, dtype=object)

    def picked(self, output: Floats) -> Floats:
        return output

    def said(self, score: Any) -> Said:
        shares = dict(zip(self.classes, np.asarray(score, dtype=np.float64).tolist(), strict=True))
        return Said(max(shares.values()), shares)

    def told(self, scores: Floats) -> list[str | None]:
        texts = [json.dumps(dict(zip(self.classes, row, strict=True)), ensure_ascii=False) for row in scores.tolist()]
        return [text if scored else None for text, scored in zip(texts, self.is_scored(scores), strict=True)]

    def column(self, scores: Floats) -> Any:
        column = np.empty(len(scores), dtype=object)
        column[:] = list(scores)
        return column

    def scores(self, column: Any) -> Floats:
        """A distribution over other classes, from before they were changed, is none."""
        rows = self.nothing(len(column))
        for place, value in enumerate(column):
            if isinstance(value, str):
                said = json.loads(value)
                if said.keys() == {*self.classes}:
                    rows[place] = [said[name] for name in self.classes]
            elif np.shape(value) == self.shape:
                rows[place] = value
        return rows

    def answers(self, model: Any, matrix: Any) -> Floats:
        scores: Floats = model.predict_proba(matrix).astype(np.float64)
        return scores

    def margins(self, scores: Floats) -> Floats:
        logarithms: Floats = np.log(scores)
        return logarithms

    def score(self, margin: float) -> float:
        raise TypeError("a distribution is made of a sum per class, not of one")

    def row_losses(self, score: Floats, label: Floats | Values) -> Floats:
        """Half the squared distance between the distribution and the class that came, in [0, 1] (Brier 1950)."""
        known, came = self._came(score, label)
        losses = (np.square(score).sum(axis=1) - 2 * came + 1) / 2
        return np.where(known, losses, np.nan)

    def mistakes(self, score: Floats, label: Floats) -> Floats:
        """1 where another class than the likeliest came."""
        return 1.0 - self.paired(score, label)[1]

    def losses(self, metric: str, score: Floats, label: Floats, cost: CostMatrix | None = None) -> Floats:
        """`brier`: half the squared distance. `log_loss`: nats, the probability of the class that came clipped from
        below by LOSS_CLIP, divided by the largest possible."""
        if metric == "brier":
            return self.row_losses(score, label)
        if metric != "log_loss":
            raise ValueError(f"the metric {metric} needs {of_metric(metric).needs}")
        known, came = self._came(score, label)
        return np.where(known, np.log(np.clip(came, LOSS_CLIP, 1)) / np.log(LOSS_CLIP), np.nan)

    @property
    def largest_loss(self) -> float:
        return 1.0

    def figures(self, score: Floats, label: Floats) -> dict[str, float | None]:
        logarithms, hits = self._measured(score, label, CLIP)
        return {"log_loss": float(logarithms.mean()), "accuracy": float(hits.mean())}

    def resampled(self, score: Floats, label: Values, weights: NDArray[np.int64]) -> dict[str, Floats]:
        """Brier score, log loss and accuracy."""
        logarithms, hits = self._measured(score, label, CLIP)
        rows = len(label)
        return {
            self.measure: weights @ self.row_losses(score, label) / rows,
            "log_loss": weights @ logarithms / rows,
            "accuracy": weights @ hits / rows,
        }

    def light_arguments(self, penalty: float) -> dict[str, float]:
        return {"C": penalty, "max_iter": 300}

    def errors(self, by_round: Floats) -> Floats:
        return by_round

    def spread(self, labels: Floats) -> Interval:
        """The 95 % interval of the share of rows in which the likeliest class came."""
        return wilson(labels)

    @property
    def caption(self) -> str:
        return (
            "Share of rows in which the likeliest class came against the mean probability that it was given, in ten "
            "bins, on the matured rows; the larger a point, the more rows. On the diagonal a class that was given 0.6 "
            "comes six times in ten."
        )

    @property
    def _names(self) -> Values:
        return np.array(self.classes, dtype=object)

    def _came(self, score: Floats, label: Floats | Values) -> tuple[NDArray[np.bool_], Floats]:
        """Which rows have a label, and the probability that each gave to the class that came."""
        known = np.isfinite(label)
        places = np.where(known, label, 0).astype(np.int64)
        return known, score[np.arange(len(score)), places]

    def _measured(self, score: Floats, label: Floats | Values, clip: float) -> tuple[Floats, Floats]:
        """(rows,) the log loss in nats of every row, and whether its likeliest class came."""
        _, came = self._came(score, label)
        return -np.log(np.clip(came, clip, 1)), self.paired(score, label)[1]


# -- all kinds --------------------------------------------------------------------------------

KINDS: dict[str, type[Target]] = {target.kind: target for target in (Binary, Bounded, Classes)}
FIELDS = frozenset[str]().union(*(target.fields for target in KINDS.values()))
"""Fields of a spec's label that not every kind has."""
LIGHT_CLASSES = tuple(dict.fromkeys(target.light_class for target in KINDS.values()))
METRICS: dict[str, str] = {metric: words for target in KINDS.values() for metric, words in target.metrics.items()}
"""Metrics that a gate may decide on, each with its words."""
MEASURES: dict[str, type[Target]] = {target.measure: target for target in reversed(KINDS.values())}
"""Measure → the kind that it is the measure of, the first where several share one: words about it are the same."""
FIGURES = tuple(
    dict.fromkeys(
        f"{figure}{end}"
        for target in KINDS.values()
        for figure, ends in ((target.measure, ("", "_low", "_high")), *((name, ("",)) for name in target.more_figures))
        for end in ends
    )
)
"""Names of all figures of all kinds, which are columns where evaluations are kept; those of another kind are null."""
YES_OR_NO = Binary()
"""The kind of a label of which nothing is said."""


def of(label: LabelFields) -> Target:
    """The kind of a spec's label. Raises ValueError when its fields do not make one."""
    return KINDS[label.kind or implied(label.bounds, label.classes)].of(label)


def implied(bounds: object, classes: object) -> str:
    """The kind of a label that names none: a number where there are bounds, one of several classes where they are
    named, else a yes or no."""
    if bounds is not None:
        return Bounded.kind
    return Binary.kind if classes is None else Classes.kind


def read(body: Mapping[str, JsonValue]) -> Target:
    """From a mapping that holds what `Target.to_json` gave, among other things: reference.json, a page's record."""
    return KINDS[str(body.get("kind") or implied(body.get("bounds"), body.get("classes")))].from_json(body)


def of_metric(metric: str) -> type[Target]:
    """The kind of label that a gate decides on by `metric`."""
    return next(target for target in KINDS.values() if metric in target.metrics)


def number_bounds(low: float, high: float) -> Interval:
    """Bounds of a number from its 1st and 99th percentile: a tenth of their distance beyond them, not below 0 where the
    lower one is not."""
    wide = 0.1 * (high - low)
    lower = low - wide if low < 0 else max(0.0, low - wide)
    return float(f"{lower:.3g}"), float(f"{high + wide:.3g}")


FEWEST_CLASSES, MOST_CLASSES, LONGEST_CLASS = 3, 20, 100
TEXTS = frozenset({"varchar", "text", "string", "char"})
"""Declared types of a column of texts."""


def checked_classes(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of a label. Raises ValueError with a sentence for what is wrong with them."""
    if len(set(classes)) != len(classes):
        twice = next(name for place, name in enumerate(classes) if name in classes[:place])
        raise ValueError(f"label.classes names '{twice}' twice; name every class once")
    if len(classes) < FEWEST_CLASSES:
        raise ValueError(
            f"label.classes names {len(classes)}, and it takes {FEWEST_CLASSES} to {MOST_CLASSES}; of two, make the "
            "label a boolean in dbt and leave classes out"
        )
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"label.classes names {len(classes)}, and it takes {FEWEST_CLASSES} to {MOST_CLASSES}; put the rare ones "
            "together in dbt"
        )
    for name in classes:
        if not names_a_class(name):
            raise ValueError(
                f"label.classes names {name!r}; a class has 1 to {LONGEST_CLASS} printable characters, no space at its "
                "ends and no braces"
            )
    return classes


def names_a_class(text: str) -> bool:
    """Whether a text can be a class: it is written into specs, columns and SQL."""
    return 0 < len(text) <= LONGEST_CLASS and text == text.strip() and text.isprintable() and not {*text} & {*"{}"}


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _alike(target: Classes) -> list[float]:
    """A distribution of about equal shares, for an example."""
    share = round(1 / len(target.classes), 2)
    return [*[share] * (len(target.classes) - 1), round(1 - share * (len(target.classes) - 1), 2)]


def at_start(words: str) -> str:
    """Words as they begin a sentence."""
    return words[0].upper() + words[1:]


# -- figures of probabilities -----------------------------------------------------------------


def decision_threshold(cost: CostMatrix) -> float:
    """The score from which a row is acted on: the declared one, else where acting and not acting cost the same in
    expectation (Elkan 2001, The foundations of cost-sensitive learning, IJCAI)."""
    if cost.threshold is not None:
        return cost.threshold
    alarm, miss = cost.false_positive - cost.true_negative, cost.false_negative - cost.true_positive
    return alarm / (alarm + miss)


def wilson(outcomes: Floats) -> Interval:
    """The 95 % interval of the share of (rows,) outcomes that are 1 (Wilson 1927)."""
    rows, observed = len(outcomes), outcomes.mean()
    centre = (observed + 1.92 / rows) / (1 + 3.84 / rows)
    half = 1.96 / (1 + 3.84 / rows) * np.sqrt(observed * (1 - observed) / rows + 0.96 / rows**2)
    return centre - half, centre + half


def log_loss(score: Floats, label: Floats) -> float:
    """Mean negative log likelihood in nats, scores clipped to [CLIP, 1 - CLIP]."""
    clipped = np.clip(score, CLIP, 1 - CLIP)
    return float(-np.mean(label * np.log(clipped) + (1 - label) * np.log1p(-clipped)))


def auc(score: Floats, label: Floats) -> float | None:
    """Area under the ROC curve from mid-ranks (Mann-Whitney), ties counted half. None with one class."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[label == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _weighted_auc(label: Values, score: Floats, weights: NDArray[np.int64]) -> Floats:
    """One AUC per row of `weights`; NaN where a resample has one class only."""
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    positive = np.add.reduceat(weights[:, order] * label[order], starts, axis=1).astype(np.float64)
    negative = np.add.reduceat(weights[:, order] * ~label[order], starts, axis=1).astype(np.float64)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: Floats = (positive * (below + negative / 2)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)
    return areas
