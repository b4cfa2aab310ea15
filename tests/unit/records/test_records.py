"""Records: what older versions wrote is read, and what is written is read back.

`tests/golden/ledger` holds rows of a ledger as version 0.1.0 wrote them, when its rows were dictionaries: those of the
demos `incident` and `subscription`, a few of every shape.
"""

import json
import re
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import AliasChoices

from tiltyard import records
from tiltyard.records import Record, Summary
from tiltyard.settings import ROOT

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


LATER = {"since_training"}
"""Fields of a finding that older ones do not have."""
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
    assert finding.to_json().keys() - LATER == {RENAMED.get(name, name) for name in row["body"]}
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


SKEWED = {"value": 0.1, "threshold": 0.1, "missing": 0.0, "missing_offline": 0.0, "skewed": False}
NAN = float("nan")


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (
            records.DriftSummary(
                model="m",
                skew=records.Skew(rows=1, features={"x": records.SkewedFeature(**{**SKEWED, "missing": NAN})}),
            ),
            "DriftSummary: skew.features.x.missing",
        ),
        (records.LabelArrival(came=NAN, predicted=1.0), "LabelArrival: came"),
        (records.CalibrationBin(0.0, 0.1, 3, NAN, 0.5), "CalibrationBin: mean_score"),
        (records.VersionFigures(more={"pinball": NAN}), "VersionFigures: more.pinball"),
        (records.PopularItem("a", "A", NAN), "PopularItem: score"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_back_is_not_written(record: Record, place: str) -> None:
    with pytest.raises(ValueError, match=rf"^{place} is not a number \(NaN\), and cannot be null; .*\.$"):
        record.to_json()


def test_what_is_no_number_is_null_where_that_says_something() -> None:
    feature = records.SkewedFeature(**{**SKEWED, "value": NAN})
    assert records.SkewedFeature.from_json(feature.to_json()) == records.SkewedFeature(**{**SKEWED, "value": None})
    figures = records.VersionFigures.of({"brier": NAN, "pinball": NAN, "crps": 0.5, "winkler": None})
    assert records.VersionFigures.from_json(figures.to_json()) == records.VersionFigures(more={"crps": 0.5})


def aliased() -> list[Any]:
    return [
        pytest.param(kind, name, choices, id=f"{kind.__name__}-{name}")
        for kind in vars(records).values()
        if isinstance(kind, type) and is_dataclass(kind)
        for name, hint in get_type_hints(kind, include_extras=True).items()
        for part in getattr(hint, "__metadata__", ())
        if isinstance(choices := getattr(part, "validation_alias", None), AliasChoices)
    ]


def test_there_are_fields_that_were_called_otherwise() -> None:
    assert {case.values[1] for case in aliased()} == {"reason", "harm_reason", "facts"}


@pytest.mark.parametrize(("kind", "name", "choices"), aliased())
def test_a_name_of_before_gives_way_to_the_name_now(kind: type[Record], name: str, choices: AliasChoices) -> None:
    assert choices.choices[0] == name
    assert len(choices.choices) == 2


@pytest.mark.parametrize(("kind", "rest", "name", "older", "value"), [
    (records.Broken, {"node": "raw.login", "column": None}, "reason", "said", "new"),
    (records.DriftSummary, {}, "harm_reason", "harm_said", "new"),
    (records.DefaultTask, {"model": "m", "opened": "2024-01-01", "since": "2024-01-01", "repeats": None},
     "facts", "said", {"share": 1.0}),
])  # fmt: skip
def test_of_an_older_and_a_newer_name_the_newer_counts(
    kind: type[Record], rest: dict[str, Any], name: str, older: str, value: Any
) -> None:
    before = {"share": 0.5} if name == "facts" else "old"
    for body in ({**rest, name: value, older: before}, {**rest, older: before, name: value}):
        assert getattr(kind.from_json(body), name) == value
    assert getattr(kind.from_json({**rest, older: before}), name) == before


def described(kind: type[Record]) -> dict[str, Any]:
    """Field → its part of the JSON schema; pydantic puts a record that holds its own kind under $defs."""
    schema: dict[str, Any] = kind.json_schema()
    return dict(schema.get("properties") or schema["$defs"][kind.__name__]["properties"])


@pytest.mark.parametrize("kind", [kind for kind in vars(records).values() if is_dataclass(kind)])
def test_every_field_of_a_record_says_what_it_is(kind: type[Record]) -> None:
    assert [name for name, part in described(kind).items() if not part.get("description")] == []


def test_no_two_records_of_the_library_have_one_name() -> None:
    """A name has one meaning; and a schema finds a record by it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "plugins" / "tiltyard").rglob("*.py")):
        for name in re.findall(r"^class (\w+)\([^)]*\bRecord\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_a_record_of_somebody_else_with_the_same_name_takes_no_description_away() -> None:
    @dataclass(frozen=True)
    class Gain(Record):
        something: int = 0

    assert Gain.json_schema()["properties"]
    assert all(part.get("description") for part in described(records.Gain).values())
