"""A key in several rows: whole repeats are left out, versions are told and taken as such, totals are no row."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from tiltyard.errors import BadInput
from tiltyard.prepare import project
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelRequest
from tiltyard.scaffold.source_texts import SourcePlan
from tiltyard.settings import Settings
from tiltyard.spec import find

HEADER = "parcel_id;created;status;written;weight;late"
START = datetime(2025, 1, 1, 1, 30, tzinfo=UTC)


def versions() -> list[str]:
    """400 parcels, each written when it is made and again when it has come; points between thousands of grams."""
    lines = []
    for number in range(400):
        made = START + timedelta(hours=6 * number)
        came = made + timedelta(hours=20 + number % 30)
        for status, at, late in (("made", made, ""), ("come", came, ("yes", "no")[number % 2])):
            when = f"{at:%Y-%m-%d %H:%M:%S}"
            lines.append(
                f"P{number};{made:%Y-%m-%d %H:%M:%S};{status};{when};{1000 + number:,};{late}".replace(",", ".")
            )
    return [*lines, lines[3], lines[5]]


def written(folder: Path, lines: list[str], **said: object) -> tuple[Settings, SourcePlan]:
    """The rows beside a checkout without any other source, with its contract."""
    (folder / "dbt" / "models" / "staging").mkdir(parents=True, exist_ok=True)
    settings = Settings(home=folder, dbt=folder / "dbt", models=folder / "models", expectations=folder / "expectations")
    (folder / "a.csv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    request = SourceRequest(
        "post",
        folder / "a.csv",
        table="parcel",
        said=Said(event_time="created", **said),
        thousands=".",  # type: ignore[arg-type]
    )
    plan = new_source.look(settings, request)
    write.files(settings, source_texts.texts(plan))
    return settings, plan


def delivered(settings: Settings) -> list[tuple[object, ...]]:
    files = settings.landing / "post" / "parcel" / "*.parquet"
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(
            "select left(parse_filename(filename), 10), parcel_id, status, late, weight, written::date::varchar "
            f"from read_parquet('{files}', filename = true) order by written, parcel_id"
        ).fetchall()


def test_versions_are_delivered_as_each_was_written_and_a_model_can_ask_of_them(tmp_path: Path) -> None:
    settings, plan = written(tmp_path, versions(), key="parcel_id", available_at="written")
    assert dict(plan.found.roles.written_later) == {"status": "written", "late": "written"}
    assert any(
        "400 rows are later versions of one, each as it was written by written" in note for note in plan.found.notes
    )
    assert any("2 rows are whole repeats" in note for note in plan.found.notes)
    cutting.cut(settings, "post", tmp_path / "a.csv")
    rows = delivered(settings)
    assert len(rows) == 800
    assert all(day == at for day, *_, at in rows)
    assert [row[1:5] for row in rows if row[1] == "P7"] == [("P7", "made", None, 1007), ("P7", "come", False, 1007)]
    asked = new_model.look(settings, ModelRequest("late", "post", label="late", horizon_days=3))
    assert not {"status", "late"} & {*asked.features}
    write.files(settings, asked.texts, asked.exposure)
    project.check_spec(project.read(settings), settings, find(settings.models, "late"))


def test_a_key_with_versions_is_refused_with_what_changes_and_what_to_say(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        written(tmp_path, versions(), key="parcel_id")
    assert str(refused.value) == (
        "--key: 'parcel_id' stands in 400 rows more than once, which are versions of one: between them status, "
        "written, late change. Where written tells when each was written, say --key parcel_id --available-at written."
    )
    _, plan = written(tmp_path / "b", versions())
    assert any("say --key parcel_id --available-at written" in note for note in plan.found.notes)
    with pytest.raises(BadInput, match="By created some of them were written at once"):
        written(tmp_path / "c", versions(), key="parcel_id", available_at="created")


def test_whole_repeats_and_a_line_of_totals_are_no_rows_of_a_key(tmp_path: Path) -> None:
    once = [line for line in versions()[:-2] if ";come;" in line]
    settings, plan = written(tmp_path, [*once, once[3], once[3], "Sum;;;;512.300;"], written_later={"late": "written"})
    assert plan.key == "parcel_id" and plan.found.table.rows == 400
    assert any("2 rows are whole repeats of another with its parcel_id" in note for note in plan.found.notes)
    summary = cutting.cut(settings, "post", tmp_path / "a.csv")
    assert (summary.undated, summary.rows - summary.undated) == (1, 400)


def test_a_key_that_many_things_share_is_none(tmp_path: Path) -> None:
    lines = [f"S{place % 200};{line.partition(';')[2]}" for place, line in enumerate(versions())]
    with pytest.raises(BadInput, match=r"does not name a row: .* repeat one, and happened at other times"):
        written(tmp_path, lines, key="parcel_id")
    _, plan = written(tmp_path / "b", lines)
    assert plan.is_numbered and not any("versions of one" in note for note in plan.found.notes)
