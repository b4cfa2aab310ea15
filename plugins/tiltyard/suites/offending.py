"""What an expectation found, in words, what it allows, and where the rows are that break it.

Great Expectations counts the rows that break an expectation and gives a few of their values, and no row. So the rows
are looked for by those values, in the SQL of the batch, when somebody opens the page that shows them.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

from tiltyard.lake import quoted, text
from tiltyard.suites.expectations import ROW_COUNTS, Expectation
from tiltyard.suites.gx import Batch
from tiltyard.suites.results import RowsAt

EXAMPLES = 5
"""Values that a sentence names."""


def in_words(found: Mapping[str, Any], *, figures: bool = False) -> tuple[str, str]:
    """What was seen, and a few offending values; both may be empty. `figures`: of one row of figures, not of rows."""
    details = found.get("details")
    rows = details.get("unexpected_rows") if isinstance(details, dict) else None
    examples = rows[:EXAMPLES] if isinstance(rows, list) else found.get("partial_unexpected_list") or []
    unique = list(dict.fromkeys(_example(example) for example in examples))
    if "unexpected_count" in found and figures:
        return (unique[0] if unique else "in order"), ""
    if "unexpected_count" in found:
        share = found.get("unexpected_percent") or 0.0
        seen = f"{found['unexpected_count']} of {found.get('element_count', 0)} rows ({share:.1f} %)"
    else:
        value = found.get("observed_value")
        seen = f"{value:.6g}" if isinstance(value, float) else str(value)
    return seen, "; ".join(unique[:EXAMPLES]) if isinstance(rows, list) else ", ".join(unique[:EXAMPLES])


def _example(value: object) -> str:
    if isinstance(value, Mapping):
        return ": ".join(str(part) for part in value.values())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def limit(kwargs: Mapping[str, Any], *, figures: bool = False) -> str:
    """What the arguments of an expectation allow, in words; empty where they name no limit. `kwargs`: with the values
    of parameters in place."""
    low, high = _bound(kwargs.get("min_value")), _bound(kwargs.get("max_value"))
    parts = []
    if low and high:
        parts.append(f"allowed are {low} to {high}")
    elif low or high:
        parts.append(f"at least {low}" if low else f"at most {high}")
    if isinstance(values := kwargs.get("value_set"), list):
        shown = ", ".join(map(str, values[:12]))
        parts.append(f"allowed are {shown}" + (f" and {len(values) - 12} more" if len(values) > 12 else ""))
    parts += [f"like {kwargs['regex']}"] if kwargs.get("regex") else []
    mostly = kwargs.get("mostly")
    if not figures and isinstance(mostly, int | float) and mostly < 1:
        parts.append(f"in {mostly:.3g} of the rows")
    return ", ".join(parts)


def _bound(value: object) -> str:
    """A bound as a sentence has it; empty for none, and for one that stands for none."""
    if isinstance(value, bool) or value is None or isinstance(value, dict):
        return ""
    if isinstance(value, int | float):
        return "" if abs(value) >= 1e12 else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return str(value)


def rows(expectation: Expectation, batch: Batch, found: Mapping[str, Any]) -> tuple[RowsAt, ...]:
    """Where the rows of a batch are that break an expectation; none where it is about the batch as a whole."""
    query = expectation.kwargs.get("unexpected_rows_query")
    if isinstance(query, str):
        return (RowsAt(query.replace("{batch}", f"({batch.sql})")),)
    columns = expectation.columns
    if not columns or expectation.type in ROW_COUNTS or "unexpected_count" not in found:
        return ()
    values = found.get("partial_unexpected_list") or []
    broken = " or ".join(dict.fromkeys(_is_value(columns, value) for value in values))
    within = _condition(expectation.kwargs)
    return (RowsAt(f"select * from ({batch.sql}) where ({broken}){within}", columns),) if broken else ()


def _condition(kwargs: Mapping[str, JsonValue]) -> str:
    condition = kwargs.get("row_condition")
    return f" and ({condition})" if isinstance(condition, str) and kwargs.get("condition_parser") is None else ""


def _is_value(columns: Sequence[str], value: object) -> str:
    """SQL: the columns have these values. Of what SQL has no word for, the text is compared."""
    if isinstance(value, Mapping):
        pairs = [(name, value.get(name)) for name in columns]
    else:
        parts = value if isinstance(value, list | tuple) and len(value) == len(columns) else [value] * len(columns)
        pairs = list(zip(columns, parts, strict=True))
    return " and ".join(_is(quoted(name), part) for name, part in pairs)


def _is(column: str, value: object) -> str:
    match value:
        case None:
            return f"{column} is null"
        case bool():
            return f"{column} is not distinct from {value}"
        case float() if value != value:
            return f"isnan({column})"
        case int() | float() | Decimal():
            return f"{column} = '{value}'::double"
        case datetime() | date():
            return f"{column}::timestamptz = {text(value.isoformat())}::timestamptz"
        case _:
            return f"{column}::varchar = {text(str(value))}"
