"""Appointments for days that lie ahead: written by `new model`, played, and judged by the day of the appointment."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from tests import stranger
from tests.flow.test_new import SAID, copied
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.judge import pairs
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import frame, project, truth
from tiltyard.rails import Rails
from tiltyard.rewind import hindcast, past
from tiltyard.rewind.play import Play
from tiltyard.rewind.trainings import PastTrainings
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import Settings
from tiltyard.spec import find

TABLE = stranger.appointments(9_000, days=80)
ASKED = ModelRequest("no_show", "clinic", label="No-show", rates=("PatientId",), loads=())
NIGHTS = 9


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    folder = tmp_path_factory.mktemp("due")
    settings = copied(folder, postgres_url)
    export = stranger.write(folder / "appointments.csv", TABLE)
    request = SourceRequest("clinic", export, table="appointment", said=SAID)
    write.files(settings, source_texts.texts(new_source.look(settings, request)))
    cutting.cut(settings, "clinic", export)
    return settings


@pytest.fixture(scope="module")
def plan(settings: Settings) -> ModelPlan:
    asked = new_model.look(settings, ASKED)
    write.files(settings, asked.texts, asked.exposure)
    spec = settings.models / "no_show" / "spec.yaml"
    spec.write_text(spec.read_text().replace("min_shadow: 7d", "min_shadow: 4d").replace("trials: 12", "trials: 2"))
    return asked


@pytest.fixture(scope="module")
def played(settings: Settings, plan: ModelPlan) -> Iterator[Rails]:
    first = datetime.combine(plan.nights.first_trainable, time(), UTC)
    with rails_module.opened(settings) as rails:
        spec = find(settings.models, "no_show")
        result = hindcast.hindcast(rails, [spec], first, first + timedelta(days=NIGHTS), jobs=1).models["no_show"]
        assert (result.stopped, result.ended_early) == ((), ())
        yield rails


def due_days(rows: pd.DataFrame) -> "pd.Series[pd.Timestamp]":
    """Appointment → its day, as the export has it."""
    table = TABLE.set_index(TABLE["AppointmentID"].astype(str))
    return pd.to_datetime(table["AppointmentDay"]).dt.tz_localize(None).reindex(rows).set_axis(rows.index)


def test_what_the_contract_says_an_outcome_is_written_with_is_its_horizon(settings: Settings, plan: ModelPlan) -> None:
    spec = find(settings.models, "no_show")
    assert plan.until == "appointment_day" == spec.label.until
    longest = (pd.to_datetime(TABLE["AppointmentDay"]) - pd.to_datetime(TABLE["ScheduledDay"])).max().days + 2
    assert abs(spec.label.horizon.days - longest) <= 1 and spec.label.delay == timedelta()
    project.check_spec(project.read(settings), settings, spec)
    assert "until appointment_day, at most" in " ".join(plan.found)
    assert "100 % of the outcomes are known by appointment_day" in " ".join(plan.found)


def test_days_that_are_asked_for_are_the_horizon_and_a_column_has_to_be_planned(
    settings: Settings, plan: ModelPlan
) -> None:
    assert new_model.look(settings, replace(ASKED, name="other", horizon_days=14)).until is None
    asked = new_model.look(settings, replace(ASKED, name="other", horizon_days=5, until="AppointmentDay"))
    assert (asked.until, asked.horizon_days) == ("appointment_day", 5)
    assert "until appointment_day, at most 5d" in " ".join(asked.found), "who wants to wait less waits no longer for it"
    spec = next(text for path, text in asked.texts.items() if path.name == "spec.yaml")
    assert "delay: 0d" in spec
    assert any("% come later than by appointment_day" in note for note in asked.notes)
    for column in ("Gender", "Age"):
        with pytest.raises(BadInput, match=r"--until: '.*' is no day or instant that is planned"):
            new_model.look(settings, replace(ASKED, name="other", until=column))


def test_a_version_is_judged_by_the_appointments_whose_day_is_over(played: Rails, settings: Settings) -> None:
    spec = find(settings.models, "no_show")
    last = max(played.ledger.finished("shadow", "no_show"))
    as_of = datetime.combine(last, time(), UTC)
    rows = truth.matured(played, spec, as_of)
    day = due_days(rows["entity_id"])
    assert len(rows) > 500
    assert (pd.to_datetime(rows["night"]) == day + pd.Timedelta(days=1)).all()
    assert rows["night"].max() <= last
    told = TABLE.set_index(TABLE["AppointmentID"].astype(str))["No-show"].eq("Yes")
    assert (rows["label"].to_numpy() == told.reindex(rows["entity_id"]).to_numpy()).all()
    leads = rows.assign(lead=(day - rows["prediction_time"].dt.tz_localize(None)).dt.days)
    assert leads["lead"].max() > 5, "what was made far ahead is judged as well"
    made = played.lake.query(
        "select count(distinct entity_id) as n from {ops.prediction} where model = 'no_show'", as_of
    )
    counts = truth.counts(played, spec, as_of)
    assert counts.matured + counts.missing + counts.immature == int(made["n"].iloc[0])
    assert counts.missing == 0


def test_a_frame_holds_whole_days_of_appointments(played: Rails, settings: Settings, plan: ModelPlan) -> None:
    spec = find(settings.models, "no_show")
    as_of = datetime.combine(plan.nights.first_trainable, time(), UTC) + timedelta(days=NIGHTS)
    rows = frame.training(played, spec, as_of).read()
    day = due_days(rows["appointment_id"]).dt.tz_localize("UTC")
    assert (rows["decided_at"] == day + pd.Timedelta(days=1) - pd.Timedelta(microseconds=1)).all()
    assert (rows["decided_at"] < as_of).all()
    made = pd.to_datetime(TABLE["ScheduledDay"])
    due = pd.to_datetime(TABLE["AppointmentDay"])
    over = (due < as_of) & (made < as_of)
    known = duckdb.sql(f"select min(prediction_time) from '{frame.training(played, spec, as_of).path}'").fetchone()
    assert known is not None and len(rows) == int((over & (made >= pd.Timestamp(known[0]))).sum())
    assert rows["patient_no_show_rate"].notna().mean() > 0.1


def test_the_past_rate_of_a_patient_counts_appointments_whose_day_was_over(played: Rails, settings: Settings) -> None:
    """Row by row: of a patient's appointments whose day was over when this one was made, the share that was missed."""
    spec = find(settings.models, "no_show")
    as_of = datetime.combine(max(played.ledger.finished("shadow", "no_show")), time(), UTC)
    rows = frame.training(played, spec, as_of).read().set_index("appointment_id")
    table = TABLE.set_index(TABLE["AppointmentID"].astype(str))
    made = pd.to_datetime(table["ScheduledDay"])
    over = pd.to_datetime(table["AppointmentDay"]) + pd.Timedelta(days=1)
    missed, patient = table["No-show"].eq("Yes"), table["PatientId"]
    rng = np.random.default_rng(3)
    seen = 0
    for name in rng.choice(rows.index, 150, replace=False):
        before = (patient == patient[name]) & (over <= made[name])
        rate = rows.loc[name, "patient_no_show_rate"]
        if before.any():
            seen += 1
            assert rate == pytest.approx(missed[before].mean()), name
        else:
            assert np.isnan(rate), name
    assert seen > 15


def test_in_memory_the_same_rows_have_matured(played: Rails, settings: Settings, plan: ModelPlan) -> None:
    """What the gate was shown on every night, and what drift found, are found again by a policy that is tried."""
    spec = find(settings.models, "no_show")
    first = datetime.combine(plan.nights.first_trainable, time(), UTC)
    last = first + timedelta(days=NIGHTS)
    threshold = load_portfolio(settings.models).budget.nights_between(1)
    decided = 0
    with past.Workers(settings, 1) as workers:
        snapshot = played.lake.snapshot()
        rows = workers.gather(spec, first, last, snapshot).result()
        play = Play(
            spec, past.read(played, spec, first, last, rows), PastTrainings(spec, workers, played, snapshot, rows)
        )
        for as_of in clock.nights(first, last):
            night = night_closing(as_of)
            past.learn(played, play.past, as_of)
            [kept] = played.ledger.findings(night)
            mine = play.look(as_of, threshold)
            assert (mine.alarm, mine.harm) == (kept.alarm, kept.harm)
            assert mine.evidence == pytest.approx(kept.evidence)
            roles = play.roles(night)
            for decision in played.ledger.decisions("no_show", until=night, since=night):
                number = decision.challenger
                beside = play.side_by_side(as_of, [number], play.trained[number] + timedelta(days=1))
                _, record = pairs.gather(spec, night, beside, number, roles.champion)
                shown = decision.evidence
                assert (record.nights, record.matured, record.expected, record.immature, record.early) == (
                    shown.nights, shown.matured, shown.expected, shown.immature, shown.early,
                )  # fmt: skip
                assert record.loss_challenger == pytest.approx(shown.loss_challenger)
                assert record.nights <= (night - play.trained[number]).days, "nights in shadow, no days that are due"
                decided += record.matured > 100
            if any(retrain.night == night for retrain in played.ledger.retrains("no_show")):
                play.add(night, ["as in the hindcast"])
    assert decided > 3
