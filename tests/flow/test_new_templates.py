"""Values that dbt would fill in are values: they are learned from and predicted, and stop nobody's texts."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tests import stranger
from tests.flow.test_new import SAID, copied
from tiltyard import rails as rails_module
from tiltyard.prepare import features, releasing
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelRequest

CLASSES = ("came, at last", "it's %late%", 'said "no", #twice#')
ASKED = "{{ asked }}"
WORDS = ("{{ user }}", "{% if %}", "{# c #}", "it's {{ x")


def test_values_like_templates_pass_through_dbt_as_they_are(tmp_path: Path, postgres_url: str) -> None:
    settings = copied(tmp_path, postgres_url)
    table = stranger.appointments(3_000, days=30)
    rng = np.random.default_rng(5)
    table.pop("No-show")
    table["Gender"] = rng.choice(WORDS, len(table))
    table["Result"] = rng.choice(CLASSES, len(table))
    table["Show"] = np.where(table["Result"].eq(CLASSES[0]), ASKED, "{% no %}")
    export = stranger.write(tmp_path / "a.csv", table)
    said = dataclasses.replace(SAID, written_later=dict.fromkeys(("Result", "Show"), "AppointmentDay"))
    found = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=said))
    write.files(settings, source_texts.texts(found))
    cutting.cut(settings, "clinic", export)
    for name, label, positive in (("each", "Result", None), ("one", "Show", ASKED)):
        request = ModelRequest(
            name, "clinic", label=label, positive=positive, horizon_days=5, rates=("Gender",), owner="{{ me }}"
        )
        plan = new_model.look(settings, request)
        write.files(settings, plan.texts, plan.exposure)
    with rails_module.opened(settings) as rails:
        assert releasing.preview(rails, datetime(2016, 4, 1, tzinfo=UTC)).refused == ()
        rails, _ = releasing.in_force(rails, datetime(2016, 4, 1, tzinfo=UTC), by="tests")
        built = features.build_night(rails, datetime(2016, 3, 20, tzinfo=UTC), ("clinic",))
        assert built.sources["clinic"].error is None

        def values(column: str, relation: str) -> set[object]:
            return {
                value
                for (value,) in rails.lake.connection.execute(
                    f"select distinct {column} from lake.{relation}"
                ).fetchall()
            }

        assert values("gender", "features.ftr_appointment__each_intake") == {*WORDS}
        assert values("label", "labels.lbl_each") == {*CLASSES}
        assert values("label", "labels.lbl_one") == {True, False}
        query = (
            "select count(*) from lake.labels.lbl_one inner join lake.labels.lbl_each using (appointment_id) "
            "where lbl_one.label <> (lbl_each.label = ?)"
        )
        assert rails.lake.connection.execute(query, [CLASSES[0]]).fetchone() == (0,)
        rates = [
            column for column in rails.lake.columns("features.ftr_gender__each_history") if column.endswith("_rate")
        ]
        assert len(rates) == 3
        for rate in rates:
            assert values(rate, "features.ftr_gender__each_history") != {0.0}
