"""A model of several classes: `new model` writes it, with past rates of each class, and a version comes of it."""

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import stranger
from tests.flow.test_new import SAID, copied
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.prepare import frame, project
from tiltyard.rewind import hindcast
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find

MISSED = 'missed, it: "no", 3%'
"""A class of which every letter means something to YAML or SQL."""
RARE = ("bit a nurse", "fire drill")
ASKED = ModelRequest("outcome", "clinic", label="Result", horizon_days=14, rates=("Neighbourhood",), loads=())


def appointments() -> pd.DataFrame:
    """How each appointment turned out, in a text; two of them hardly ever come."""
    table = stranger.appointments(12_000, days=70)
    rng = np.random.default_rng(3)
    missed = table.pop("No-show").eq("Yes")
    late = rng.random(len(table)) < np.where(table["Neighbourhood"].eq("CENTRO"), 0.5, 0.1)
    table["Result"] = np.where(missed, MISSED, np.where(late, "it's late", "came"))
    table.loc[table.index[::1_000], "Result"] = RARE[0]
    table.loc[table.index[1::4_000], "Result"] = RARE[1]
    return table


TABLE = appointments()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    folder = tmp_path_factory.mktemp("classes")
    settings = copied(folder, postgres_url)
    export = stranger.write(folder / "export.csv", TABLE)
    said = dataclasses.replace(SAID, written_later={"Result": "AppointmentDay", "SMS_received": "AppointmentDay"})
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointments", said=said))
    write.files(settings, source_texts.texts(plan))
    cutting.cut(settings, "clinic", export)
    return settings


@pytest.fixture(scope="module")
def asked(settings: Settings) -> ModelPlan:
    plan = new_model.look(settings, ASKED)
    write.files(settings, plan.texts, plan.exposure)
    return plan


def spec_of(settings: Settings) -> Spec:
    return find(settings.models, "outcome")


def test_every_text_is_a_class_that_comes_often_enough(settings: Settings, asked: ModelPlan) -> None:
    spec = spec_of(settings)
    assert spec.label.classes == ("came", MISSED, "it's late")
    shares = TABLE["Result"].value_counts(normalize=True)
    default = spec.fallback.safe_default
    assert isinstance(default, dict)
    assert default == pytest.approx({name: shares[name] for name in spec.label.classes}, abs=0.003)
    assert sum(default.values()) == 1
    notes = "\n".join(asked.notes)
    assert "result has several texts, and each of them is asked for" in notes
    assert (
        "Too rare to stand alone, or no name of a class, so that they have no label: bit a nurse, fire drill." in notes
    )
    project.check_spec(project.read(settings), settings, spec)
    names = (*asked.texts,)
    paths = [str(settings.dbt.parent / path) for path in names if path.suffix == ".sql"]
    command = [sys.executable, "-m", "sqlfluff", "lint", "--disable-progress-bar", "--config", str(ROOT / ".sqlfluff")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_rare_texts_together_are_a_class_of_their_own(settings: Settings) -> None:
    """Where each alone is too rare and all of them are not: here of thirty texts, of which a label takes twenty."""
    plan = new_model.look(
        settings, dataclasses.replace(ASKED, name="place", label="SMS_received", asks_each=False, positive="1")
    )
    assert plan.base == pytest.approx(TABLE["SMS_received"].mean(), abs=0.01)
    counts = {f"kind {number:02}": 500 - number for number in range(30)}
    truth, classes, rare = new_model.asking.class_sql("kind", "text", counts, 40.0)
    assert classes == (*sorted(counts)[:19], "other") and rare == tuple(sorted(counts)[19:])
    assert truth.startswith("case when versions.kind in ('kind 00', ") and truth.endswith("else 'other' end")
    truth, classes, rare = new_model.asking.class_sql("kind", "text", {"a {{ b": 99, "c": 90, "d": 80, "e": 70}, 40.0)
    assert (classes, rare) == (("c", "d", "e", "other"), ("a {{ b",)), "no spec takes braces in the name of a class"
    with pytest.raises(BadInput, match="fewer than 3 come often enough"):
        new_model.asking.class_sql("kind", "text", {"a": 900, "b": 5, "c": 4}, 40.0)


def test_a_version_comes_of_it_and_the_past_rate_of_each_class_is_that_of_the_matured_rows(
    settings: Settings, asked: ModelPlan
) -> None:
    night = datetime.combine(asked.nights.begin, time(), UTC)
    with rails_module.opened(settings) as rails:
        result = hindcast.hindcast(rails, [spec_of(settings)], night, night, jobs=1).models["outcome"]
        assert (result.stopped, result.ended_early) == ((), ())
        [version] = rails.ledger.versions("outcome")
        metrics = version.facts.metrics
        assert metrics is not None
        rows = frame.training(rails, spec_of(settings), night).read()
    rate = rows.set_index("appointment_id")["neighbourhood_result_it_s_late_rate"]
    assert rate.notna().mean() > 0.3
    made = pd.to_datetime(TABLE["ScheduledDay"])
    truth = TABLE["Result"].where(~TABLE["Result"].isin(RARE))
    told = pd.to_datetime(TABLE["AppointmentDay"]) + pd.Timedelta(days=1) <= made + pd.Timedelta(days=14)
    by_key = TABLE.set_index(TABLE["AppointmentID"].astype(str)).assign(made=made.to_numpy())
    for key in rate.dropna().sample(20, random_state=1).index:
        one = by_key.loc[key]
        # its cohorts had matured when the night before its row had ended
        past = (TABLE["Neighbourhood"] == one["Neighbourhood"]) & (made + pd.Timedelta(days=14) <= one["made"]) & told
        assert rate[key] == pytest.approx((TABLE.loc[past, "Result"] == "it's late").mean(), abs=1e-9), (
            key,
            truth[past].value_counts(),
        )


def test_a_past_rate_that_does_not_say_of_which_class_is_refused(
    settings: Settings, asked: ModelPlan, tmp_path: Path
) -> None:
    view = settings.dbt / "models" / "features" / "ftr_neighbourhood__outcome_history.sql"
    before = view.read_text()
    start, end = before.index(",\n    classes="), before.index("\n) }}")
    try:
        view.write_text(before[:start] + before[end:])
        with pytest.raises(BadInput, match=r"keeps a past rate of lbl_outcome, whose label is one of several classes"):
            project.check_spec(project.read(settings), settings, spec_of(settings))
    finally:
        view.write_text(before)


def test_a_view_that_cannot_be_built_is_said_while_the_nights_are_played_and_at_their_end(
    settings: Settings, asked: ModelPlan
) -> None:
    view = settings.dbt / "models" / "features" / "ftr_appointment__outcome_intake.sql"
    before = view.read_text()
    night = datetime.combine(asked.nights.begin, time(), UTC) + timedelta(days=1)
    said: list[str] = []
    try:
        view.write_text(before.replace("from numbered", "from unnumbered"))
        with rails_module.opened(settings) as rails:
            result = hindcast.hindcast(
                rails, [spec_of(settings)], night, night, jobs=1, progress=lambda label, share: said.append(label)
            )
    finally:
        view.write_text(before)
    assert "ftr_appointment__outcome_intake failed: what reads it goes on with what stands" in said
    complaint = hindcast.unbuilt(result.tables)
    assert complaint is not None
    assert complaint.startswith("1 table failed: ftr_appointment__outcome_intake on 1 night: dbt failed at")
    assert "unnumbered" in complaint
