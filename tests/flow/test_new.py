"""From a stranger's table to a registered version: `new source` and `new model` write it all, and nothing is mended."""

import dataclasses
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from tests import stranger
from tests.conftest import know_project, make_settings
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, TiltyardError, Unavailable
from tiltyard.prepare import contracts, frame, ingest, project
from tiltyard.rails import Rails
from tiltyard.rewind import hindcast
from tiltyard.scaffold import afar, cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find

SAID = Said(
    event_time="ScheduledDay",
    planned=("AppointmentDay",),
    written_later={"No-show": "AppointmentDay", "SMS_received": "AppointmentDay"},
    identifies=("PatientId",),
)
TABLE = stranger.appointments()
ASKED = ModelRequest("no_show", "clinic", label="No-show", horizon_days=14, rates=("PatientId",), loads=("PatientId",))


@dataclass(frozen=True)
class Written:
    """A checkout into which a source and a model were written."""

    settings: Settings
    export: Path
    plan: ModelPlan
    cut: cutting.CutSummary


def copied(folder: Path, postgres_url: str) -> Settings:
    """A checkout of the shipped texts, and a home."""
    for name in ("dbt", "models", "expectations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("target", "logs"))
    roots = {name: folder / name for name in ("dbt", "models", "expectations")}
    settings = make_settings(folder, postgres_url, sources=("clinic",), **roots)
    know_project(settings, postgres_url)
    return settings


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Written:
    folder = tmp_path_factory.mktemp("stranger")
    settings = copied(folder, postgres_url)
    export = stranger.write(folder / "KaggleV2.csv", TABLE)
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=SAID))
    write.files(settings, source_texts.texts(plan))
    cut = cutting.cut(settings, "clinic", export)
    asked = new_model.look(settings, ASKED)
    write.files(settings, asked.texts, asked.exposure)
    return Written(settings, export, asked, cut)


@pytest.fixture(scope="module")
def played(written: Written) -> Iterator[Rails]:
    """Four nights from the first with a past to learn from."""
    first = datetime.combine(written.plan.nights.begin, time(), UTC)
    with rails_module.opened(written.settings) as rails:
        spec = find(written.settings.models, "no_show")
        result = hindcast.hindcast(rails, [spec], first, first + timedelta(days=3), jobs=1)
        assert result.models["no_show"].stopped == ()
        assert result.models["no_show"].ended_early == ()
        yield rails


def test_what_is_written_passes_validate_and_the_linter(written: Written) -> None:
    settings = written.settings
    project.check_spec(project.read(settings), settings, find(settings.models, "no_show"))
    command = [sys.executable, "-m", "sqlfluff", "lint", "--disable-progress-bar", "--config", str(ROOT / ".sqlfluff")]
    paths = [
        path for path in settings.dbt.rglob("*.sql") if not (ROOT / "dbt" / path.relative_to(settings.dbt)).exists()
    ]
    assert len(paths) == 6
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_every_row_is_delivered_as_it_was_known_and_again_with_its_outcome(written: Written) -> None:
    files = written.settings.landing / "clinic" / "appointment"
    rows = duckdb.sql(f"select *, filename from read_parquet('{files}/*.parquet', filename = true)").df()
    assert (written.cut.rows, written.cut.written_again, written.cut.undated) == (len(TABLE), len(TABLE), 0)
    assert len(rows) == 2 * len(TABLE)
    first, second = rows[rows["No-show"].isna()], rows[rows["No-show"].notna()]
    assert first["SMS_received"].isna().all()
    assert first["AppointmentID"].is_unique and second["AppointmentID"].is_unique
    assert (first["written_at"] == first["ScheduledDay"]).all()
    on = pd.to_datetime(second["AppointmentDay"]).dt.tz_localize("UTC") + pd.Timedelta(days=1)
    assert (second["written_at"] == on).all(), "an outcome is known with the midnight after its day"
    named = pd.to_datetime(rows["filename"].str[-18:-8]).dt.tz_localize("UTC")
    assert ((rows["written_at"] > named) & (rows["written_at"] <= named + pd.Timedelta(days=1))).all()
    truth = TABLE.set_index("AppointmentID")["No-show"].eq("Yes").sort_index()
    assert (second.set_index("AppointmentID")["No-show"].astype(bool).sort_index() == truth).all()


def test_it_says_what_is_no_feature_and_why(written: Written) -> None:
    left_out = written.plan.left_out
    assert left_out["sms_received"] == "it is written later"
    assert left_out["patient_id"] == "it identifies a person"
    features = set(written.plan.features)
    assert {"age", "gender", "appointment_day_days_ahead", "event_weekday"} <= features
    assert not features & {"no_show", "sms_received", "patient_id", "appointment_id"}
    card = (written.settings.models / "no_show" / "card.md").read_text()
    assert "`sms_received` is no feature: it is written later." in card
    exposures = yaml.safe_load((written.settings.dbt / "models" / "_models__exposures.yml").read_text())["exposures"]
    assert exposures[-1]["name"] == "no_show" and len(exposures) == 6


def test_a_version_comes_of_it_that_is_better_than_the_base_rate(played: Rails, written: Written) -> None:
    spec = find(written.settings.models, "no_show")
    versions = played.ledger.versions(spec.name)
    assert [version.version for version in versions] == [1]
    base = written.plan.base
    measured = versions[0].facts.metrics
    assert measured is not None and measured.brier is not None and measured.auc is not None
    assert measured.brier.value < base * (1 - base) - 0.005
    assert measured.auc.low > 0.5
    assert spec.fallback.safe_default == pytest.approx(base, abs=0.05)


def test_every_history_is_filled_and_knows_nothing_too_early(played: Rails, written: Written) -> None:
    spec = find(written.settings.models, "no_show")
    night = datetime.combine(written.plan.nights.begin, time(), UTC) + timedelta(days=3)
    rows = frame.training(played, spec, night).read()
    assert rows["patient_rows_28d"].notna().all()
    assert rows["patient_no_show_rate"].notna().mean() > 0.1
    truth = TABLE.set_index(TABLE["AppointmentID"].astype(str))["No-show"].eq("Yes")
    assert (rows.set_index("appointment_id")["label"] <= truth.reindex(rows["appointment_id"])).all()


def test_versions_prove_when_an_outcome_was_written_of_which_no_column_tells_it(
    tmp_path: Path, postgres_url: str
) -> None:
    """Each row was delivered without it and again with it: a history that is counted from it can be trained on."""
    settings = copied(tmp_path, postgres_url)
    export = stranger.write(tmp_path / "a.csv", stranger.appointments(9_000, days=60))
    said = Said(
        "ScheduledDay", None, None, ("AppointmentDay",), {"No-show": None, "SMS_received": None}, ("PatientId",)
    )
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=said))
    write.files(settings, source_texts.texts(plan))
    cutting.cut(settings, "clinic", export, written_after=timedelta(days=4))
    asked = new_model.look(
        settings,
        ModelRequest("no_show", "clinic", label="No-show", horizon_days=5, rates=("PatientId",), loads=()),
    )
    write.files(settings, asked.texts, asked.exposure)
    night = datetime(2016, 4, 18, tzinfo=UTC)
    with rails_module.opened(settings) as rails:
        result = hindcast.hindcast(rails, [find(settings.models, "no_show")], night, night, jobs=1).models["no_show"]
        assert (result.stopped, result.ended_early) == ((), ())
        assert [version.version for version in rails.ledger.versions("no_show")] == [1]
        rows = frame.training(rails, find(settings.models, "no_show"), night).read()
    assert rows["patient_no_show_rate"].notna().any()


def test_what_a_stranger_would_fall_over_is_told_or_left_out(tmp_path: Path, postgres_url: str) -> None:
    """A missing outcome is unknown where a no is told as such; clocks and names of rows are no features; what nearly is
    the outcome is asked about; the hour is that of the zone, also where times carry one."""
    settings = copied(tmp_path, postgres_url)
    table = stranger.appointments(6_000, days=90)
    made, missed = pd.to_datetime(table["ScheduledDay"]), table["No-show"].eq("Yes")
    rng = np.random.default_rng(1)
    unknown = rng.random(len(table)) < 0.2
    table.loc[unknown, "No-show"] = "NA"
    table["Month"], table["Serial"] = made.dt.month, made.rank(method="first").astype(int) // 3
    table["Waited"] = np.where(missed, 0, rng.integers(40, 60, len(table)))
    export = stranger.write(tmp_path / "a.csv", table)
    request = SourceRequest("clinic", export, table="appointment", zone="America/Chicago", said=SAID)
    write.files(settings, source_texts.texts(new_source.look(settings, request)))
    cutting.cut(settings, "clinic", export)
    plan = new_model.look(settings, ASKED)
    assert plan.left_out["month"] == "it is the same in all rows of a day, as a calendar is"
    assert plan.left_out["serial"] == "it goes on with the days, as a counter does"
    assert "age" in plan.features and "waited" in plan.features
    notes = "\n".join(plan.notes)
    assert f"{unknown.sum():,} of 6,000 rows have no outcome, and a no is told as such: they have no label" in notes
    assert "waited nearly tells the outcome (correlation -0.9" in notes
    assert plan.base == pytest.approx(missed[~unknown].mean(), abs=0.001)
    texts = {path.name: text for path, text in plan.texts.items()}
    assert "still_open" not in texts["lbl_no_show.sql"]
    assert "timezone('America/Chicago', event_time)" in texts["ftr_appointment__no_show_intake.sql"]
    asked = new_model.look(settings, dataclasses.replace(ASKED, untold="no"))
    assert "still_open" in {path.name: text for path, text in asked.texts.items()}["lbl_no_show.sql"]
    assert any("count as no; --untold unknown leaves them out" in note for note in asked.notes)


def test_deliveries_of_both_kinds_are_read_together(tmp_path: Path, postgres_url: str) -> None:
    """An export was cut into Parquet, and from then on the source delivers CSV: times are times in both."""
    settings = copied(tmp_path, postgres_url)
    export = stranger.write(tmp_path / "a.csv", stranger.appointments(3_000))
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=SAID))
    write.files(settings, source_texts.texts(plan))
    cut = cutting.cut(settings, "clinic", export)
    row = (
        stranger.appointments(20)
        .head(1)
        .assign(AppointmentID=1, written_at="2016-03-02T00:00:00Z", **{"No-show": "NA"})
    )
    there = settings.landing / "clinic" / "appointment"
    stranger.write(there / f"{cut.last + timedelta(days=1)}.csv", row.assign(SMS_received="NA"))
    for request in (
        ModelRequest("m", "clinic", label="SMS_received", positive=">0"),
        ModelRequest("m", "clinic", entity="sex=Gender", is_number=True),
    ):
        assert new_model.look(settings, request).rows_per_night > 0
    plan = new_model.look(settings, ModelRequest("m", "clinic", label="SMS_received", positive=">0"))
    assert "versions.sms_received > 0 as label" in {path.name: text for path, text in plan.texts.items()}["lbl_m.sql"]
    with pytest.raises(
        BadInput, match="sms_received is above 5 holds of no outcome, so that there is nothing to learn"
    ):
        new_model.look(settings, ModelRequest("m", "clinic", label="SMS_received", positive="> 5"))
    assert any("sms_received is above 0" in line for line in plan.found)


def test_of_a_source_that_cannot_be_cut_nothing_stays(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    export = stranger.write(tmp_path / "a.csv", stranger.appointments(600))
    there = settings.landing / "clinic" / "appointment"
    there.mkdir(parents=True)
    (there / "2016-03-01.csv").touch()
    words = ("new", "source", "clinic", str(export), "--table", "appointment", "--yes")
    done = tiltyard(settings, *words)
    assert (done.returncode, "holds deliveries already" in done.stderr) == (2, True)
    assert not (settings.dbt / "models" / "staging" / "clinic").exists()
    (there / "2016-03-01.csv").unlink()
    assert tiltyard(settings, *words).returncode == 0
    again = tiltyard(settings, *words)
    assert "or take it away first with tiltyard remove clinic" in again.stderr


# -- refusals ---------------------------------------------------------------------------------


def test_nothing_is_written_over(written: Written) -> None:
    settings = written.settings
    with pytest.raises(BadInput, match="There is a source 'clinic' already"):
        new_source.look(settings, SourceRequest("clinic", written.export))
    with pytest.raises(BadInput, match="the source clinic has a table 'appointment', and both would land"):
        new_source.look(settings, SourceRequest("praxis", written.export, table="appointment"))
    named = stranger.write(written.export.parent / "appointment.csv", TABLE.head(500))
    assert new_source.look(settings, SourceRequest("praxis", named, said=SAID)).table == "praxis_appointment"
    with pytest.raises(BadInput, match="no_show is there already"):
        new_model.look(settings, ASKED)
    with pytest.raises(BadInput, match="holds deliveries already"):
        cutting.cut(settings, "clinic", written.export)
    spine = settings.dbt / "models" / "spines" / "spn_no_show.sql"
    before = spine.read_text()
    spine.write_text(before + "\n")
    with pytest.raises(BadInput, match=r"spn_no_show\.sql is there already"):
        write.files(settings, written.plan.texts)
    assert spine.read_text() == before + "\n"
    spine.write_text(before)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ModelRequest("m", "clinic"), "Say which column holds the outcome with --label: sms_received, no_show"),
        (ModelRequest("m", "clinic", label="Age"), "'age' is not said to be written later"),
        (ModelRequest("m", "clinic", label="No-shows"), "did you mean no_show?"),
        (ModelRequest("m", "clinic", label="No-show", positive="perhaps"), "'perhaps' is neither"),
        (ModelRequest("m", "clinic", label="No-show", is_number=True), "holds no numbers"),
        (ModelRequest("m", "clinic", label="No-show", rates=("AppointmentID",)), "names one row, which has no past"),
        (ModelRequest("m", "clinic", label="No-show", entity="patient=PatientId"), "is written later than its row"),
        (ModelRequest("No Show", "clinic"), "is no plain name of a model"),
        (ModelRequest("m", "nowhere"), "There is no source 'nowhere'"),
    ],
)
def test_a_question_that_cannot_be_answered(written: Written, request_: ModelRequest, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        new_model.look(written.settings, request_)
    assert message in str(raised.value)


def test_an_outcome_with_one_value_is_no_question(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    table = stranger.appointments(600).assign(**{"No-show": "No"})
    export = stranger.write(tmp_path / "a.csv", table)
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=SAID))
    write.files(settings, source_texts.texts(plan))
    cutting.cut(settings, "clinic", export)
    with pytest.raises(BadInput, match="holds only 'false', so that there is nothing to learn"):
        new_model.look(settings, ModelRequest("m", "clinic", label="No-show"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Clinic"}, "'Clinic' is no plain name of a source"),
        ({"zone": "Vienna"}, "'Vienna' is no time zone"),
        ({"country": "XX"}, "no holidays are known of 'XX'"),
        ({"said": Said("AppointmentDay", "ScheduledDay")}, "rows were known before they happened"),
    ],
)
def test_a_source_that_cannot_be(written: Written, values: dict[str, Any], message: str) -> None:
    asked = {"name": "praxis", "path": written.export, "table": "visit", "said": SAID, **values}
    with pytest.raises(BadInput) as raised:
        new_source.look(written.settings, SourceRequest(**asked))
    assert message in str(raised.value)


# -- the contract -----------------------------------------------------------------------------


def test_a_delivery_in_the_sources_own_words_lands_under_our_names(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    table = stranger.appointments(400).rename(columns={"Age": "Alter in Jähren", "Gender": "order"})
    export = stranger.write(tmp_path / "a.csv", table, delimiter="|", encoding="cp1252")
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=SAID))
    assert [note for note in plan.found.notes if "order is order_value" in note and "Jähren" not in note]
    write.files(settings, source_texts.texts(plan))
    contract = contracts.read(settings, "clinic")
    assert contract.tables[0].timing.format.encoding == "cp1252"
    assert contract.tables[0].header("alter_in_jahren") == "Alter in Jähren"
    folder = settings.landing / "clinic" / "appointment"
    folder.mkdir(parents=True)
    delivered = table.assign(written_at=table["ScheduledDay"])
    stranger.write(folder / "2016-06-01.csv", delivered, delimiter="|", encoding="cp1252")
    stranger.write(folder / "2016-06-02.csv", delivered.drop(columns="order"), delimiter="|", encoding="cp1252")
    with rails_module.opened(settings) as rails:
        summary = ingest.land_night(rails, "clinic", datetime(2016, 6, 3, tzinfo=UTC))
        assert [refused.reason for refused in summary.quarantined] == ["column 'order' is missing"]
        assert (summary.rows, summary.null_available_at) == (400, 0)
        rows = rails.lake.connection.execute(
            "select order_value, count(*), count(alter_in_jahren), count(*) filter (neighbourhood = 'ITARARÉ') "
            "from lake.raw.appointment group by 1 order by 1"
        ).fetchall()
    assert [row[0] for row in rows] == ["F", "M"]
    assert sum(row[1] for row in rows) == 400
    assert 0 < sum(row[2] for row in rows) == (table["Alter in Jähren"] != "NA").sum()
    assert sum(row[3] for row in rows) == (table["Neighbourhood"] == "ITARARÉ").sum()


@pytest.mark.parametrize(
    ("split", "asked", "timing"),
    [
        (
            {"day": "%Y-%m-%d", "hour_of_day": "%H:%M:%S"}, None,
            {"column": "day", "further": ["hour_of_day"]},
        ),
        (
            {"Tag": "%d.%m.%Y", "Uhrzeit": "%H:%M:%S"}, "Tag, Uhrzeit",
            {"column": "tag", "further": ["uhrzeit"], "format": "%d.%m.%Y %H:%M:%S"},
        ),
        (
            {"year": "%Y", "month": "%-m", "day": "%-d", "hour": "%-H", "minute": "%-M"}, None,
            {"column": "year", "further": ["month", "day", "hour", "minute"], "format": "%Y %m %d %H %M"},
        ),
        (
            {"year": "%Y", "month": "%-m", "day": "%-d"}, None,
            {"column": "year", "further": ["month", "day"], "format": "%Y %m %d"},
        ),
    ],
)  # fmt: skip
def test_a_time_that_stands_in_several_columns_lands_as_one(
    tmp_path: Path, postgres_url: str, split: dict[str, str], asked: str | None, timing: dict[str, Any]
) -> None:
    settings = copied(tmp_path, postgres_url)
    table = stranger.purchases(900, days=30)
    at = pd.to_datetime(table.pop("At"))
    for place, (header, form) in enumerate(split.items()):
        table.insert(place, header, at.dt.strftime(form))
    export = stranger.write(tmp_path / "a.csv", table)
    plan = new_source.look(settings, SourceRequest("clinic", export, table="receipt", said=Said(asked)))
    guessed = [note for note in plan.found.notes if "together are taken to tell when a row happened" in note]
    assert bool(guessed) == (asked is None), "what is guessed is told"
    assert not [note for note in plan.found.notes if "Uhrzeit has" in note], "no part of a time names a row"
    write.files(settings, source_texts.texts(plan))
    declared = yaml.safe_load((settings.dbt / "models/staging/clinic/_clinic__sources.yml").read_text())
    assert declared["sources"][0]["tables"][0]["config"]["meta"]["tiltyard"]["event_time"] == timing
    cut = cutting.cut(settings, "clinic", export)
    assert (cut.rows, cut.undated) == (900, 0)
    with rails_module.opened(settings) as rails:
        assert ingest.land_night(rails, "clinic", datetime(2016, 5, 1, tzinfo=UTC)).rows == 900
        found = rails.lake.connection.execute(
            "select event_time, available_at from lake.raw.receipt order by receipt_id"
        ).fetchall()
    finest = next(reversed(split.values()))
    step = next(step for letters, step in (("%S", "s"), ("M", "min"), ("d", "D")) if finest.endswith(letters))
    expected = at.dt.floor(step).dt.tz_localize("UTC")
    assert [row[0] for row in found] == list(expected)
    end = pd.Timedelta(days=1) - pd.Timedelta(seconds=1) if step == "D" else pd.Timedelta(0)
    assert [row[1] for row in found] == list(expected + end), "a day is known at its end"


def test_columns_that_are_no_time_together_are_refused(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    export = stranger.write(tmp_path / "a.csv", stranger.purchases(300))
    with pytest.raises(BadInput, match=r"--event-time: Shop,Town together are no time, like "):
        new_source.look(settings, SourceRequest("clinic", export, table="receipt", said=Said("Shop,Town")))
    with pytest.raises(BadInput, match=r"did you mean Town\?"):
        new_source.look(settings, SourceRequest("clinic", export, table="receipt", said=Said("Shop,Towm")))


# -- the command line -------------------------------------------------------------------------


def tiltyard(
    settings: Settings, *words: str, answers: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command over this checkout; `answers` are typed on a terminal."""
    ours = {
        f"TILTYARD_{name.upper()}": str(getattr(settings, name)) for name in ("home", "dbt", "models", "expectations")
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")} | ours
    typed, terminal = pty.openpty()
    try:
        if answers is not None:
            os.write(typed, answers.encode())
        return subprocess.run(
            [sys.executable, "-m", "tiltyard.cli", *words],
            env=environment | {"PYTHONPATH": str(ROOT / "plugins")} | variables,
            stdin=subprocess.DEVNULL if answers is None else terminal,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        os.close(typed)
        os.close(terminal)


def test_the_commands_ask_show_and_refuse(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    export = str(stranger.write(tmp_path / "appointment.csv", stranger.appointments(3_000)))

    refused = tiltyard(settings, "new", "source", "clinic", export)
    assert refused.returncode == 2
    assert "This is no terminal, so nothing can be asked" in refused.stderr
    shown = tiltyard(settings, "new", "source", "clinic", export, "--dry-run")
    assert shown.returncode == 0
    assert "header: No-show, written_later: appointment_day" in shown.stdout
    assert not (settings.dbt / "models" / "staging" / "clinic").exists()

    lines = ["", "", "", "", "No-show=AppointmentDay, SMS_received=AppointmentDay", "", ""]
    asked = tiltyard(settings, "new", "source", "clinic", export, answers="\n".join(lines) + "\n")
    assert asked.returncode == 0, asked.stderr
    assert "Which column tells when a row happened? [ScheduledDay]" in asked.stdout
    assert "taken to be written later" not in asked.stderr.splitlines()[-1]
    assert len(list((settings.landing / "clinic" / "appointment").iterdir())) > 70

    lines = ["", "no_show", "", "PatientId", "-", "7"]
    asked = tiltyard(settings, "new", "model", "no_show", "--source", "clinic", answers="\n".join(lines) + "\n")
    assert asked.returncode == 0, asked.stderr
    assert "of the outcomes are known" in asked.stdout
    spec = find(settings.models, "no_show")
    assert spec.label.horizon == timedelta(days=7)
    assert spec.prediction.features == ("ftr_appointment__no_show_intake", "ftr_patient__no_show_history")
    again = tiltyard(settings, "new", "model", "no_show", "--source", "clinic", "--label", "No-show", "--yes")
    assert again.returncode == 2
    assert "is there already, and nothing is written over" in again.stderr


def test_an_amount_is_a_number_with_bounds(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    table = stranger.appointments(3_000)
    table["Minutes"] = table["Age"].replace("NA", "40").astype(int) // 2 + 10
    export = stranger.write(tmp_path / "a.csv", table)
    said = Said("ScheduledDay", None, None, ("AppointmentDay",), {"Minutes": "AppointmentDay"}, ("PatientId",))
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=said))
    write.files(settings, source_texts.texts(plan))
    cutting.cut(settings, "clinic", export)
    asked = new_model.look(
        settings, ModelRequest("minutes", "clinic", is_number=True, horizon_days=10, rates=("PatientId",), loads=())
    )
    write.files(settings, asked.texts, asked.exposure)
    spec = find(settings.models, "minutes")
    project.check_spec(project.read(settings), settings, spec)
    assert spec.label.bounds is not None
    assert spec.label.bounds[0] <= 10 and spec.label.bounds[1] >= 59
    assert 30 <= spec.fallback.safe_default <= 40


# -- a table that is not a file here ----------------------------------------------------------


@pytest.fixture
def clinic_database(postgres_url: str) -> sa.URL:
    """A database in which the appointments stand as they are now, each with when it was written last."""
    url = sa.make_url(postgres_url)
    name = f"clinic_{uuid.uuid4().hex[:8]}"
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    table = stranger.appointments(3_000)
    table["ScheduledDay"] = pd.to_datetime(table["ScheduledDay"])
    table["AppointmentDay"] = pd.to_datetime(table["AppointmentDay"]).dt.date
    table["updated_at"] = table["ScheduledDay"] + pd.Timedelta(minutes=5)
    table["Fee"] = table["AppointmentID"] % 7 + 0.5
    engine = sa.create_engine(url.set(database=name))
    kinds = {"AppointmentDay": sa.Date(), "ScheduledDay": sa.DateTime(timezone=True), "Fee": sa.Numeric(9, 2),
             "updated_at": sa.DateTime(timezone=True)}  # fmt: skip
    table.to_sql("Termine", engine, index=False, dtype=kinds)
    engine.dispose()
    return url.set(database=name)


def test_a_table_of_a_database_is_a_source_and_its_rows_are_fetched(
    tmp_path: Path, postgres_url: str, clinic_database: sa.URL
) -> None:
    settings = copied(tmp_path, postgres_url)
    address = clinic_database.set(username=None).render_as_string() + "#public.Termine"
    variables = {
        "AIRFLOW_CONN_CLINIC": f"postgresql://{clinic_database.username}:a-pass%40word@/",
        "TILTYARD_DATABASE_URL": str(settings.database_url), "TILTYARD_DATABASE_PREFIX": settings.database_prefix,
    }  # fmt: skip
    words = ["new", "source", "clinic", address, "--table", "appointment", "--connection", "clinic", "--yes"]
    said = ["--event-time", "ScheduledDay", "--planned", "AppointmentDay", "--available-at", "updated_at"]
    done = tiltyard(settings, *words, *said, "--written-later", "No-show", "--json", **variables)
    assert done.returncode == 0, done.stderr
    assert "a-pass" not in done.stdout + done.stderr
    [table] = contracts.read(settings, "clinic").tables
    assert table.timing.fetch is not None
    assert (table.timing.fetch.cursor, table.timing.fetch.connection) == ("updated_at", "clinic")
    assert (table.columns["fee"], table.columns["appointment_day"]) == ("DOUBLE", "DATE")
    checked = tiltyard(settings, "validate", "--json", **variables)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    landed = tiltyard(settings, "ingest", "--source", "clinic", "--as-of", "2016-07-01", "--json", **variables)
    assert landed.returncode == 0, landed.stderr
    assert json.loads(landed.stdout)["clinic"]["rows"] == 3_000
    assert "a-pass" not in landed.stdout + landed.stderr
    model = tiltyard(settings, "new", "model", "no_show", "--source", "clinic", "--label", "No-show", "--positive",
                     "Yes", "--no-history", "--yes", **variables)  # fmt: skip
    assert model.returncode == 0, model.stderr
    path = settings.dbt / "models" / "staging" / "clinic" / "_clinic__sources.yml"
    path.write_text(path.read_text().replace("cursor: updated_at", "cursor: gone"))
    wrong = tiltyard(settings, "validate", **variables)
    assert wrong.returncode == 2
    line = next(place for place, text in enumerate(path.read_text().splitlines(), 1) if "cursor: gone" in text)
    said = f"_clinic__sources.yml:{line}: table 'appointment': fetch names the column 'gone'"
    assert said in wrong.stderr.replace("\n", " ")


def test_an_address_is_a_file_to_be_cut_and_one_that_cannot_be_had_says_so(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    folder = tmp_path / "served"
    folder.mkdir()
    stranger.write(folder / "Kaggle V2.csv", stranger.appointments(2_000))
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}/"
        with afar.brought(settings, f"{there}Kaggle%20V2.csv?signature=x") as sample:
            plan = new_source.look(settings, SourceRequest("clinic", sample.path, said=SAID, place=sample.place))
            write.files(settings, source_texts.texts(plan))
            assert cutting.cut(settings, "clinic", sample.path).rows == 2_000
        assert (plan.table, plan.place) == ("kaggle_v2", None)
        with pytest.raises(Unavailable, match=rf"{there}gone.csv cannot be had \(the server answers 404"), \
                afar.brought(settings, f"{there}gone.csv?signature=x"):  # fmt: skip
            pass
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://me:a-pass@host/shop#web.visit", "carries a password"),
        ("https://me:a-pass@host/visits.csv", "carries a password"),
        ("kafka://host:9092/visits", "write its contract by hand"),
        ("ftp://host/visits.csv", "ftp:// is no place"),
        ("/nowhere/at/all/*.csv", "is not there"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(TiltyardError, match=message) as raised, afar.brought(Settings(home=tmp_path), address):
        pass
    assert "a-pass" not in str(raised.value)


def test_files_by_a_pattern_are_fetched_and_the_newest_is_the_sample(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    exports = tmp_path / "exports"
    exports.mkdir()
    table = stranger.appointments(3_000)
    for day, rows in table.groupby(table["ScheduledDay"].str[:10]):
        stranger.write(exports / f"visits-{day}.csv", rows)
    with afar.brought(settings, f"{exports}/*.csv") as sample:
        said = Said("ScheduledDay", "ScheduledDay", None, ("AppointmentDay",), {}, ("PatientId",))
        with pytest.raises(BadInput, match="All rows happened on one day"):
            new_source.look(settings, SourceRequest("clinic", sample.path, said=said, place=sample.place))
    stranger.write(exports / "all-2016-06-30.csv", table)
    with afar.brought(settings, f"{exports}/*.csv") as sample:
        request = SourceRequest("clinic", sample.path, "appointment", said=said, place=sample.place)
        plan = new_source.look(settings, request)
    write.files(settings, source_texts.texts(plan))
    assert plan.available_at == "scheduled_day"
    [declared] = contracts.read(settings, "clinic").tables
    assert declared.timing.fetch is not None
    assert declared.timing.fetch.address == f"{exports}/*.csv"
