"""The label of anybody's table: two values of any kind, or a number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb

from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.leak.engine import first_row, is_readable
from tiltyard.leak.rules import is_instant
from tiltyard.leak.tabular import AuditedTable

YES = frozenset({"yes", "y", "true", "t", "1", "1.0", "positive", "pos", "ja", "oui", "si", "sí"})
"""Texts that say that the outcome happened, whatever their case."""
NO = frozenset({"no", "n", "false", "f", "0", "0.0", "-1", "negative", "neg", "nein", "non"})
"""Texts that say that it did not."""


@dataclass(frozen=True)
class AuditedLabel:
    """How the label was read."""

    column: str
    kind: Literal["binary", "number"]
    sql: str = field(repr=False)
    """Over the table: 0 or 1, or a number; NULL where there is none."""
    positive: str
    """What counts as 1; '' for a number."""
    rows: int
    """Rows that have one."""


def read_label(
    connection: duckdb.DuckDBPyConnection, table: AuditedTable, column: str, option: str
) -> tuple[AuditedLabel, list[str]]:
    """The label and notes on how it was read: two values of any kind are 0 and 1; more numbers are a regression.

    Raises BadInput for anything else, under the `option` that named the column.
    """
    kind = table.columns[column]
    if not is_readable(kind) or is_instant(kind):
        raise BadInput(f"{option}: column '{column}' is {kind.lower()[:40]}; a label has two values, or is a number.")
    value, is_text, rows, notes = _value(connection, table, column)
    distinct = f"select distinct {value} from {table.relation} where {value} is not null limit 3"
    values = [value for (value,) in connection.execute(distinct).fetchall()]
    if not values:
        raise BadInput(f"{option}: column '{column}' of {table.path.name} is empty; it holds no outcome to look at.")
    if rows < table.rows:
        notes.append(f"{column}: {table.rows - rows:,} of {table.rows:,} rows have no label.")
    if len(values) > 2:
        if is_text:
            shown = ", ".join(repr(str(value)[:30]) for value in sorted(values))
            raise BadInput(
                f"{option}: column '{column}' is text of more than two kinds ({shown}, …); give a column with two "
                "values, or with a number."
            )
        return AuditedLabel(column, "number", value, "", rows), notes
    positive = _positive(connection, table, value, values)
    compared = text(str(positive)) if is_text else repr(float(positive))
    sql = f"case when {value} is not null then ({value} = {compared})::integer end"
    shown = str(positive) if is_text else f"{float(positive):g}"
    if len(values) == 2 and (is_text or {f"{float(value):g}" for value in values} != {"0", "1"}):
        negative = next(value for value in values if value != positive)
        notes.append(f"{column}: {shown} counts as 1, {negative} as 0.")
    return AuditedLabel(column, "binary", sql, shown, rows), notes


def _value(connection: duckdb.DuckDBPyConnection, table: AuditedTable, column: str) -> tuple[str, bool, int, list[str]]:
    """(SQL of the label, NULL where there is none; whether it is text; rows that have one; notes)."""
    name, is_varchar = quoted(column), table.columns[column] == "VARCHAR"
    clean = f"nullif(trim({name}), '')" if is_varchar else f"{name}::double"
    number = f"try_cast({clean} as double)" if is_varchar else clean
    finite = f"case when isfinite({number}) then {number} end"
    filled, numbers, finite_numbers = first_row(
        connection, f"select count({clean}), count({number}), count({finite}) from {table.relation}"
    )
    notes = []
    if numbers > finite_numbers:
        lost = numbers - finite_numbers
        notes.append(f"{column}: {lost:,} labels are NaN or infinite; those rows count as unlabelled.")
    is_text = is_varchar and numbers < filled
    return (clean, True, filled, notes) if is_text else (finite, False, finite_numbers, notes)


def _positive(
    connection: duckdb.DuckDBPyConnection, table: AuditedTable, value: str, values: Sequence[str | float]
) -> str | float:
    """Of two values the one that says yes; the greater number; else the rarer."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts:
        numbers = [float(value) for value in values]
        return max(numbers) if len(numbers) == 2 else numbers[0] or 1.0
    for word in texts:
        if word.casefold() in YES:
            return word
    for word in texts:
        if word.casefold() in NO and len(texts) == 2:
            return next(twin for twin in texts if twin != word)
    (rarer,) = first_row(
        connection,
        f"select {value} from {table.relation} where {value} is not null group by 1 order by count(*), 1 limit 1",
    )
    return str(rarer)
