"""Values of the window and of training side by side, as Evidently takes them, and the page that it draws."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import pandas as pd

from tiltyard.govern import change
from tiltyard.pages import kit
from tiltyard.records import Finding, Signal
from tiltyard.train import profile
from tiltyard.train.encoding import is_number
from tiltyard.words import strength

if TYPE_CHECKING:
    from evidently import Dataset

log = logging.getLogger(__name__)

# Evidently takes seconds to import: only the functions that ask it do.

BELOW = "How the window lies beside training, column by column, as Evidently draws it."
"""What leads from our table to Evidently's drawing."""
SHOWN = (("Column", "column_name"), ("Type", "column_type"), ("Reference", "reference_distribution"),
         ("Window", "current_distribution"), ("Moved", "moved"), ("Effect", "effect"), ("Limit", "limit"))  # fmt: skip
"""Head of a column of Evidently's table → the field of its rows. What is said of a column is our verdict, with the
figures it rests on: Evidently's own, of other rows and without the evidence, could say another."""

COLUMNS = tuple(map(kit.PageColumn, ("kind", "column", "weight", "effect", "limit", "moved", "evidence", "")))
STYLE = """<style>
.tiltyard { font: 14px/1.8 sans-serif; margin: 1em; overflow-x: auto }
.tiltyard th, .tiltyard td { text-align: left; padding-right: 1em }
</style>"""
"""The table stands on Evidently's own page, whose style it must not change."""
THEIRS = ("data_drift", "drift_score", "stattest_name")
"""What Evidently says of a column, which is left out."""
ColumnKind = Literal["numeric", "categorical"]


class EvidentlyOptions(TypedDict):
    """What Evidently's drift metrics are told."""

    num_method: str
    """Statistic of numbers."""
    cat_method: str
    """Statistic of categories."""
    per_column_threshold: dict[str, float]
    """Column → the distance from which on it has drifted."""


class Raw:
    """Columns of the window and of training side by side, cleaned, as Evidently takes them."""

    def __init__(self) -> None:
        self.kinds: dict[str, ColumnKind] = {}
        """Column → how it is compared."""
        self.reference: dict[str, pd.Series[Any]] = {}
        """Column → its values at training."""
        self.current: dict[str, pd.Series[Any]] = {}
        """Column → its values in the window."""
        self.threshold: dict[str, float] = {}
        """Column → the distance from which on Evidently calls it drifted."""

    def add(
        self, column: str, kind: ColumnKind, reference: "pd.Series[Any]", current: "pd.Series[Any]", threshold: float
    ) -> None:
        """Left out where either side has too few values to compare."""
        before, now = (_clean(kind, values) for values in (reference, current))
        if min(len(before), len(now)) < change.MIN_VALUES:
            return
        if kind == "categorical":
            before, now = _folded(before, now)
        self.kinds[column], self.threshold[column] = kind, threshold
        self.reference[column], self.current[column] = before, now

    def evidently_drifted(self, columns: Sequence[str]) -> frozenset[str]:
        """Of `columns`, those that Evidently calls drifted. No figure is drawn: 20 ms a column.

        Evidently counts values into bins on its way, which numpy refuses where numbers differ by less than they can
        tell, like 2**53 and 2**53 + 2. Of a column that it does not take, its statistic is computed here: what cannot
        be drawn decides nothing.
        """
        comparable = [column for column in columns if column in self.kinds]
        try:
            return self._found_drifted(comparable)
        except Exception as error:  # it does not say of which column
            log.warning("Evidently does not take these columns together: %s", error)
        found: set[str] = set()
        for column in comparable:
            try:
                found |= self._found_drifted([column])
            except Exception as error:
                log.warning("Evidently does not take %s, whose distance is computed here: %s", column, error)
                found |= {column} if self.distance(column) >= self.threshold[column] else set()
        return frozenset(found)

    def _found_drifted(self, columns: Sequence[str]) -> frozenset[str]:
        from evidently import Report
        from evidently.metrics import DriftedColumnsCount

        if not columns:
            return frozenset()
        metrics = [DriftedColumnsCount(columns=[column], **self._methods([column])) for column in columns]
        with np.errstate(invalid="ignore"):  # densities of a constant column
            results = Report(metrics, include_tests=False).run(*self.datasets(columns)).dict()["metrics"]
        return frozenset(
            column for column, result in zip(columns, results, strict=True) if result["value"]["count"] > 0
        )

    def distance(self, column: str) -> float:
        """What Evidently computes of a column (see profile.py), from its values."""
        before, now = self.reference[column], self.current[column]
        if self.kinds[column] == "numeric":
            places = np.unique(np.concatenate([before, now]))
            cells = profile.Cells(True, places[1:], places, max(float(before.std(ddof=0)), profile.SMALLEST))
        else:
            cells = profile.Cells(False, names=tuple(np.unique(np.concatenate([before, now]))))
        return float(profile.distance(cells, profile.count(cells, before), profile.count(cells, now)))

    def draw(self, title: str, finding: Finding, units: Mapping[str, str] | None = None) -> str:
        """Evidently's data drift page over every column, the finding before it, as one self-contained HTML text.
        `units`: column → what its numbers are in, which stands beside its name.

        The preset draws every column twice, for its table and for a metric of its own that it does not show; only
        the count and the table are asked for here, which halves the time.
        """
        from evidently import Report
        from evidently.core.container import MetricOrContainer
        from evidently.core.report import Context
        from evidently.presets import DataDriftPreset

        above = _table(title, finding)
        if not self.kinds:
            return kit.page(title, [above])

        named = units or {}
        signals = {_named(signal.column, named): signal for signal in tested(finding.signals)}

        class DriftTable(DataDriftPreset):  # type: ignore[misc]
            def generate_metrics(self, context: Context) -> Sequence[MetricOrContainer]:
                metrics: Sequence[MetricOrContainer] = super().generate_metrics(context)
                return metrics[:1]

            def render(self, context: Context, child_widgets: Any = None) -> list[Any]:
                widgets = super().render(context, child_widgets)
                return [_ours(widget, signals) for widget in widgets if widget.type == "big_table"]

        drawn = self._to_draw(named)

        def page_of(columns: Sequence[str]) -> str:
            preset = DriftTable(**drawn._methods(columns))
            with np.errstate(invalid="ignore"):
                snapshot = Report([preset], include_tests=False).run(*drawn.datasets(columns))
            page: str = snapshot.get_html_str(as_iframe=False)
            return page

        try:
            page = page_of(list(drawn.kinds))
        except Exception:  # it does not say of which column
            why = {column: reason for column in drawn.kinds if (reason := _refusal(page_of, column))}
            left_out = [
                kit.paragraph(f"{column} is left out of the drawing, which does not take its values: {reason}")
                for column, reason in why.items()
            ]
            above = kit.joined([above, *left_out])
            if not (columns := [column for column in drawn.kinds if column not in why]):
                return kit.page(title, [above])
            page = page_of(columns)
        page = page.replace("<head>", f"<head><title>{kit.text(title)}</title>", 1)
        return page.replace("<body>", f"<body>{above}", 1)

    def _to_draw(self, units: Mapping[str, str]) -> "Raw":
        """The same, with units in the names, and without the sign that begins a tag: Evidently writes values into a
        script, which ends for a browser where one of them says `</script>`."""
        drawn = Raw()
        for column, kind in self.kinds.items():
            name = _named(column, units)
            drawn.kinds[name], drawn.threshold[name] = kind, self.threshold[column]
            drawn.reference[name], drawn.current[name] = (
                values if kind == "numeric" else values.map(_untagged)
                for values in (self.reference[column], self.current[column])
            )
        return drawn

    def _methods(self, columns: Sequence[str]) -> EvidentlyOptions:
        return EvidentlyOptions(
            num_method=change.STATISTIC[True],
            cat_method=change.STATISTIC[False],
            per_column_threshold={column: self.threshold[column] for column in columns},
        )

    def datasets(self, columns: Sequence[str]) -> tuple["Dataset", "Dataset"]:
        """Window and reference, as Evidently takes them; shorter columns are padded with missing values."""
        from evidently import DataDefinition, Dataset

        definition = DataDefinition(
            numerical_columns=[column for column in columns if self.kinds[column] == "numeric"],
            categorical_columns=[column for column in columns if self.kinds[column] == "categorical"],
        )
        current = pd.DataFrame({column: self.current[column] for column in columns})
        reference = pd.DataFrame({column: self.reference[column] for column in columns})
        return Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)


def _named(column: str, units: Mapping[str, str]) -> str:
    """A column with what its numbers are in, as it is drawn."""
    return _untagged(f"{column} ({units[column]})" if column in units else column)


def _untagged(text: str) -> str:
    return text.replace("<", "\u2039")


def _ours(widget: Any, signals: Mapping[str, Signal]) -> Any:
    """Evidently's table of columns with our verdict in place of its own: one page says one thing."""
    rows = []
    for row in widget.params["data"]:
        signal = signals.get(row["column_name"])
        figures = ("", "", "")
        if signal is not None:
            figures = ("yes" if signal.drifted else "no", _figure(signal.value), _figure(signal.threshold))
        drawn = {name: value for name, value in row.items() if name not in THEIRS}
        rows.append({**drawn, **dict(zip(("moved", "effect", "limit"), figures, strict=True))})
    order = {name: place for place, name in enumerate(signals)}
    rows.sort(key=lambda row: order.get(row["column_name"], len(order)))
    present = {column["field"]: column for column in widget.params["columns"]}
    columns = [{**present.get(field, {}), "title": title, "field": field} for title, field in SHOWN]
    widget.title = ""
    widget.params = {**widget.params, "columns": columns, "data": rows}
    return widget


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _refusal(page_of: Callable[[Sequence[str]], str], column: str) -> str | None:
    """Why a column cannot be drawn by itself; None where it can."""
    try:
        page_of([column])
    except Exception as error:  # whatever Evidently, or numpy below it, says of its values
        return f"{type(error).__name__}: {error}"
    return None


def _clean(kind: ColumnKind, values: "pd.Series[Any]") -> "pd.Series[Any]":
    if kind == "numeric":
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(numbers[is_number(numbers)])
    return values.dropna().reset_index(drop=True).map(str).astype(object)


def _folded(before: "pd.Series[Any]", now: "pd.Series[Any]") -> "tuple[pd.Series[Any], pd.Series[Any]]":
    """Rare categories as one, those that training never saw as another."""
    counts = before.value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    frequent, every = set(names[: profile.KEPT]), set(names)
    folded = now.where(now.isin(frequent), np.where(now.isin(every), "(other)", "(new)"))
    return before.where(before.isin(frequent), "(other)").astype(object), folded.astype(object)


def without_pictures(title: str, finding: Finding, reason: str) -> str:
    """The page where its pictures cannot be drawn, and why."""
    return kit.page(title, [_table(title, finding), kit.paragraph(f"There are no pictures of this night: {reason}")])


def _table(title: str, finding: Finding) -> kit.Html:
    """What the page begins with: the verdict, and every column's effect, by effect times importance."""
    state = "An alarm stands" if finding.alarm else "No alarm"
    evidence = f"{state}: evidence {strength(finding.evidence or 0.0)}, threshold {finding.threshold or 0.0:,.0f}. "
    lines = [evidence, finding.harm_reason, *(broken.reason for broken in finding.broken)]
    rows = [
        (
            signal.kind,
            signal.column,
            f"{signal.weight:.1%}",
            "" if signal.value is None else f"{signal.statistic} {_figure(signal.value)}",
            _figure(signal.threshold),
            "yes" if signal.drifted else "",
            "" if signal.evidence is None else strength(signal.evidence),
            signal.note,
        )
        for signal in finding.signals
    ]
    heading = kit.joined([kit.Html(f"<h1>{kit.text(title)}</h1>"), *(kit.paragraph(line) for line in lines if line)])
    below = kit.paragraph(BELOW)
    return kit.Html(f"{STYLE}<div class=tiltyard tabindex=0>{heading}{kit.table(COLUMNS, rows)}{below}</div>")


def tested(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    """Those of which there are values to show."""
    shown = (signal for signal in signals if signal.value is not None and signal.weight)
    return tuple(signal for signal in shown if signal.kind != "missing")


def ordered(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    """What moved first, by effect over its threshold times importance; what was not tested last."""

    def rank(signal: Signal) -> tuple[bool, bool, float, str]:
        excess = signal.value / signal.threshold if signal.value is not None and signal.threshold else 0.0
        return (not signal.drifted, signal.value is None, -excess * signal.weight, signal.column)

    return tuple(sorted(signals, key=rank))
