"""Records: what older versions wrote is read, and what is written is read back.

`tests/golden/ledger` holds rows of a ledger as version 0.1.0 wrote them, when its rows were dictionaries: those of the
demos `incident` and `subscription`, a few of every shape.
"""

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tiltyard import records
from tiltyard.records import Record, Summary

GOLDEN = Path(__file__).parents[2] / "golden" / "ledger"
KINDS: dict[str, type[Record]] = {
    "version": records.Version,
    "decision": records.Decision,
    "promotion": records.Promotion,
    "watch": records.Watch,
    "retrain": records.Retrain,
    "incident": records.Incident,
    "event": records.Event,
}
SUMMARIES = {kind.stage: kind for kind in Summary.__subclasses__()}


RENAMED = {"said": "reason", "harm_said": "harm_reason"}
"""Field as 0.1.0 called it → its name now."""


def rows(table: str) -> list[Any]:
    """The rows of one table in every golden ledger, with a readable id."""
    return [
        pytest.param(row, id=f"{path.parent.name}-{place}-{row.get('stage', '')}")
        for path in sorted(GOLDEN.glob(f"*/{table}.json"))
        for place, row in enumerate(json.loads(path.read_text(encoding="utf-8")))
    ]


def holds(new: Any, old: Any) -> bool:
    """Whether everything that the old body says stands in the new one; the new one may say more."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            holds(new.get(RENAMED.get(name, name)), value) for name, value in old.items()
        )
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(holds, new, old))
    return bool(new == old)


def test_there_are_old_rows_of_every_table() -> None:
    assert all(
        rows(table) for table in ("stage_run", "version", "decision", "promotion", "watch", "retrain", "finding")
    )


@pytest.mark.parametrize("row", rows("stage_run"))
def test_a_summary_of_before_is_read_and_nothing_of_it_is_lost(row: dict[str, Any]) -> None:
    summary = SUMMARIES[row["stage"]].from_json(row["summary"])
    assert holds(summary.to_json(), row["summary"])
    assert type(summary).from_json(summary.to_json()) == summary


@pytest.mark.parametrize(("table", "row"), [
    pytest.param(table, *case.values, id=f"{table}-{case.id}") for table in KINDS for case in rows(table)
])  # fmt: skip
def test_an_entry_of_before_is_read_and_nothing_of_it_is_lost(table: str, row: dict[str, Any]) -> None:
    entry = KINDS[table].from_json(row)
    written = entry.to_json()
    for name, value in row.items():
        if name != "recorded_at":
            assert holds(written[name], value), name
    assert KINDS[table].from_json(written) == entry


@pytest.mark.parametrize("row", rows("finding"))
def test_a_finding_of_before_is_read(row: dict[str, Any]) -> None:
    finding = records.Finding.from_json(row["body"])
    assert finding.to_json().keys() == {RENAMED.get(name, name) for name in row["body"]}
    assert holds(finding.to_json(), row["body"])


@pytest.mark.parametrize("row", [*rows("decision"), *rows("watch")])
def test_evidence_of_before_is_written_to_the_letter_so_that_its_digest_still_holds(row: dict[str, Any]) -> None:
    evidence = records.EvidenceRecord.from_json(row["evidence"])
    assert json.dumps(evidence.to_json(), sort_keys=True) == json.dumps(row["evidence"], sort_keys=True)
    assert evidence.signed(row["verdict"]).digest == row["evidence"]["digest"]


def test_what_json_cannot_hold_is_the_largest_float_or_null() -> None:
    interval = records.Interval(float("inf"), float("-inf"), float("nan"))
    assert json.loads(json.dumps(interval.to_json(), allow_nan=False)) == {
        "value": 1.7976931348623157e308,
        "low": -1.7976931348623157e308,
        "high": None,
    }


def described(kind: type[Record]) -> dict[str, Any]:
    """Field → its part of the JSON schema; pydantic puts a record that holds its own kind under $defs."""
    schema: dict[str, Any] = kind.json_schema()
    return dict(schema.get("properties") or schema["$defs"][kind.__name__]["properties"])


@pytest.mark.parametrize("kind", [kind for kind in vars(records).values() if is_dataclass(kind)])
def test_every_field_of_a_record_says_what_it_is(kind: type[Record]) -> None:
    assert [name for name, part in described(kind).items() if not part.get("description")] == []
