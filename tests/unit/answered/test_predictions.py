"""The answers of a night as a table, and as files that are the same however often they are written."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard import rails as rails_module
from tiltyard.answered import predictions
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.judge import shadow
from tiltyard.lake import identifier
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.tables import PREDICTION

NIGHT = instant("2024-03-03")


@pytest.fixture
def shop(tmp_path: Path, settings: Settings) -> Settings:
    """A home in which a model without a champion was scored on one night with three visits, and on one without any."""
    spec = small_spec(tmp_path)
    settings = settings.model_copy(update={"models": tmp_path / "models", "sources": ("shops",)})
    with rails_module.opened(settings) as rails:
        draw(rails)
        for as_of in (NIGHT, NIGHT + timedelta(days=1)):
            shadow.shadow_night(rails, spec, as_of)
    return settings


def draw(rails: Rails) -> None:
    visits = [("v2", 9), ("v1", 8), ("v,3", 7)]
    at = instant("2024-03-02")
    rows = [{"visit_id": name, "shop_id": "s1", "prediction_time": at + timedelta(hours=hour)} for name, hour in visits]
    fill(rails, SPINES, rows)
    fill(rails, FEATURES, [{"shop_id": "s1", "size": 3, "event_time": instant("2024-03-01")}])
    fill(rails, LABELS, [])
    rails.ledger.record_stage("shops", NIGHT.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))


def tiltyard(settings: Settings, *words: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")}
    ours = {
        "PYTHONPATH": str(ROOT / "plugins"),
        "TILTYARD_HOME": str(settings.home),
        "TILTYARD_MODELS": str(settings.models),
        "TILTYARD_SOURCES": "shops",
        "TILTYARD_DATABASE_URL": settings.database_url or "",
        "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
    }
    command = [sys.executable, "-m", "tiltyard.cli", *words]
    return subprocess.run(command, env=kept | ours, capture_output=True, timeout=300)


def test_every_row_of_the_spine_has_its_answer_in_the_order_of_the_keys(shop: Settings) -> None:
    with rails_module.opened(shop) as rails:
        rows = predictions.of_night(rails, "small", night_closing(NIGHT)).to_pandas()
    assert list(rows["entity_id"]) == ["v,3", "v1", "v2"]
    assert list(rows.columns) == list(predictions.COLUMNS)
    assert set(rows["tier"]) == {"safe_default"}
    assert set(rows["score"]) == {0.5}
    assert rows["version"].isna().all()
    assert (rows["reason"] != "").all()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_same_answers_are_the_same_bytes(shop: Settings, tmp_path: Path, kind) -> None:
    spec = small_spec(tmp_path)
    with rails_module.opened(shop) as rails:
        predictions.save(predictions.of_night(rails, "small", NIGHT.date()), tmp_path / "first", kind)
        shadow.shadow_night(rails, spec, NIGHT)
        predictions.save(predictions.of_night(rails, "small", NIGHT.date()), tmp_path / "second", kind)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_night_without_rows_has_a_head_and_no_answers_and_one_that_was_not_scored_is_refused(
    shop: Settings, tmp_path: Path
) -> None:
    with rails_module.opened(shop) as rails:
        rows = predictions.of_night(rails, "small", (NIGHT + timedelta(days=1)).date())
        predictions.save(rows, tmp_path / "none.csv", "csv")
        assert (tmp_path / "none.csv").read_text() == ",".join(predictions.COLUMNS) + "\n"
        assert predictions.newest_night(rails, "small") == (NIGHT + timedelta(days=1)).date()
        with pytest.raises(BadInput, match="no answers of 2024-04-01: its newest scored night is 2024-03-04"):
            predictions.of_night(rails, "small", date(2024, 4, 1))
        with pytest.raises(BadInput, match="No night of other is scored yet"):
            predictions.newest_night(rails, "other")


def test_answers_that_are_in_the_lake_no_more_are_no_night_without_answers(shop: Settings) -> None:
    with rails_module.opened(shop) as rails:
        rails.lake.connection.execute(f"delete from {identifier(PREDICTION)}")
        with pytest.raises(BadInput, match="3 answers of small of 2024-03-03 are in the lake no more"):
            predictions.of_night(rails, "small", NIGHT.date())
        assert not predictions.of_night(rails, "small", (NIGHT + timedelta(days=1)).date()).num_rows


def test_the_command_writes_a_file_or_standard_output_or_one_document(shop: Settings, tmp_path: Path) -> None:
    words = ("predictions", "small", "--night", "2024-03-03")
    shown, told = tiltyard(shop, *words), tiltyard(shop, *words, "--format", "csv", "--out", str(tmp_path / "a.csv"))
    assert (shown.returncode, told.returncode) == (0, 0), shown.stderr + told.stderr
    assert shown.stdout == (tmp_path / "a.csv").read_bytes()
    assert b"3 answers of small of 2024-03-03" in told.stdout
    piped = tiltyard(shop, *words, "--format", "parquet")
    (tmp_path / "b.parquet").write_bytes(piped.stdout)
    assert list(pd.read_parquet(tmp_path / "b.parquet")["entity_id"]) == ["v,3", "v1", "v2"]
    document = json.loads(tiltyard(shop, *words, "--json").stdout)
    assert [row["tier"] for row in document["rows"]] == ["safe_default"] * 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "xlsx"), b"--format is csv or parquet"),
        (("--night", "2024-05-05"), b"its newest scored night is 2024-03-04"),
        (("--out", "/no/such/folder/a.csv"), b"/no/such/folder/a.csv cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(shop: Settings, words: tuple[str, ...], sentence: bytes) -> None:
    done = tiltyard(shop, "predictions", "small", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert b"Traceback" not in done.stderr
