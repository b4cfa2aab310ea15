"""The document of `tiltyard status`: what scripts read of it stays, and its schema says what everything is."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tiltyard.edge import describe, document
from tiltyard.edge.document import FilledFeatures, ModelStatus, NoNight, Realized
from tiltyard.records import FilledFeature

GOLDEN = Path(__file__).parents[2] / "golden" / "status" / "0.1.0.json"
"""What `tiltyard status --json` of version 0.1.0 printed of the demo."""
RENAMED = {"harm_said": "harm_reason"}
"""Field as 0.1.0 called it → its name now (CHANGELOG.md)."""


def missing(older: Any, newer: Any, place: str = "") -> list[str]:
    """The places where `newer` has not what `older` says; more than that it may have."""
    if isinstance(older, dict) and isinstance(newer, dict):
        parts = [
            (f"{place}/{name}", value, newer.get(RENAMED.get(name, name), "not there")) for name, value in older.items()
        ]
    elif isinstance(older, list) and isinstance(newer, list) and len(older) == len(newer):
        parts = [(f"{place}/{i}", value, newer[i]) for i, value in enumerate(older)]
    else:
        return [] if older == newer and type(older) is type(newer) else [place]
    return [name for part in parts for name in missing(part[1], part[2], part[0])]


def test_what_version_0_1_0_printed_stands_where_it_stood() -> None:
    (printed,) = json.loads(GOLDEN.read_text(encoding="utf-8"))
    status = ModelStatus.from_json(printed)
    assert missing(printed, status.to_json()) == []
    assert ModelStatus.from_json(status.to_json()) == status
    assert (status.champion, status.shadow_nights) == (3, {4: 12})
    assert isinstance(status.realized, Realized) and str(status.realized.first) == printed["realized"]["from"]


def test_a_model_without_a_night_has_a_short_document() -> None:
    waiting = NoNight(model="churn", owner="ann", tier=2, measure="brier", state="no night yet")
    body = {"model": "churn", "owner": "ann", "tier": 2, "measure": "brier", "as_of": None, "state": "no night yet"}
    assert waiting.to_json() == body | {"not_in_force_yet": None}


def test_the_schema_describes_every_field() -> None:
    schema: Any = document.schema()
    assert schema["type"] == "array"
    plain = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, body in definition.get("properties", {}).items()
        if not body.get("description")
    ]
    assert plain == []


@pytest.mark.parametrize("name", ["ModelStatus", "NoNight"])
def test_the_schema_names_the_keys_that_are_printed(name: str) -> None:
    schema: Any = document.schema()
    assert {"model", "owner", "tier", "measure", "as_of"} <= set(schema["$defs"][name]["properties"])
    assert "from" in schema["$defs"]["Realized"]["properties"]


def test_the_features_that_say_nothing_or_moved_are_named() -> None:
    (printed,) = json.loads(GOLDEN.read_text(encoding="utf-8"))
    older = ModelStatus.from_json(printed)
    assert "latency      not measured" in describe.model(replace(older, latency=()))
    assert re.search(r"latency      \d+ tables? measured, ", describe.model(older))
    assert "matured in all, " in describe.model(older)
    told = describe.model(replace(older, matured_since=older.as_of.date()))
    assert f"matured of the nights since {older.as_of.date()}, " in told
    assert "features " not in describe.model(older), "a version from before it was kept says nothing of it"
    features = (
        FilledFeature("history", 0.0, is_dead=True, now=0.4),
        FilledFeature("plan", 1.0, now=0.98),
        FilledFeature("device", 0.9, now=0.5),
    )
    filled = FilledFeatures(version=3, night=date(2024, 5, 1), features=features)
    assert describe.features(filled) == (
        "3 of v3, 1 had at most one value at training: history (no value, filled at training 0 %, now 40 %); "
        "1 filled otherwise than at training: device (filled at training 90 %, now 50 %); now is the night of "
        "2024-05-01"
    )
    assert describe.features(filled) in describe.model(replace(older, features=filled))
    assert describe.features(replace(filled, features=features[1:2])) == "1 of v3, filled as at training"
