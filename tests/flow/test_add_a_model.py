"""docs/tutorial/add-a-model.md to the letter: its files fit the project, and its label knows nothing too early."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.errors import BadInput
from tiltyard.prepare import datasets, ingest, project, transform
from tiltyard.settings import ROOT, Settings

FOUR_DAYS_IN = datetime(2016, 3, 5, tzinfo=UTC)


@pytest.fixture
def documented(settings: Settings, tmp_path: Path) -> Settings:
    """A copy of the project with the files that the page prints, each where the page says."""
    copy = tmp_path / "a checkout"
    shutil.copytree(ROOT / "dbt", copy / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    written = []
    for section in (ROOT / "docs" / "tutorial" / "add-a-model.md").read_text(encoding="utf-8").split("```\n\n"):
        before, fence, block = section.partition("```")
        language, _, body = block.partition("\n")
        if fence and language in ("sql", "yaml", "markdown"):
            path = copy / re.findall(r"`((?:dbt|models)/[\w/]+\.\w+)`", before)[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            written.append(path.name)
    assert written == ["lbl_reassigned.sql", "lbl_reassigned.yml", "spec.yaml", "card.md"]
    return settings.model_copy(update={"dbt": copy / "dbt", "models": copy / "models", "sources": ("incident",)})


def test_what_the_page_prints_fits_the_project(documented: Settings) -> None:
    project.check_spec(project.read(documented), documented, specs.find(documented.models, "reassigned"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("dbt/models/labels/lbl_reassigned.yml", "lbl_reassigned has its SQL, but no .yml describes it"),
        ("dbt/models/labels/lbl_reassigned.sql", "lbl_reassigned has its .yml, but no SQL"),
        ("models/reassigned/spec.yaml", "no model 'reassigned' yet: .* has no spec.yaml"),
        ("models/reassigned/card.md", "card.md is missing; write what reassigned is for"),
    ],
)
def test_a_forgotten_file_is_named(documented: Settings, file: str, message: str) -> None:
    (documented.models.parent / file).unlink()
    with pytest.raises(BadInput, match=message):
        project.check_spec(project.read(documented), documented, specs.find(documented.models, "reassigned"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("      - name: label\n", r"lbl_reassigned.yml:\d+: every column begins with '- name:'"),
        ("  - name: lbl_reassigned\n", r"lbl_reassigned.yml:\d+: every model begins with '- name:'"),
    ],
)
def test_a_name_left_out_of_the_yml_is_bad_input(documented: Settings, line: str, message: str) -> None:
    path = documented.dbt / "models" / "labels" / "lbl_reassigned.yml"
    path.write_text(path.read_text(encoding="utf-8").replace(line, line.replace("name", "nam")), encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        project.check_spec(project.read(documented), documented, specs.find(documented.models, "reassigned"))


def test_the_label_it_prints_knows_nothing_too_early(documented: Settings, data_mirror: Path) -> None:
    documented = documented.model_copy(update={"data_mirror": data_mirror})
    datasets.fetch(documented, "incident")
    with rails_module.opened(documented) as rails:
        ingest.land_night(rails, "incident", FOUR_DAYS_IN)
        rest = ("--exclude", "tag:reference", "--exclude-resource-type", "unit_test")
        transform.invoke(documented, "build", "--select", "+lbl_reassigned", *rest)
        seen = rails.lake.connection.execute(
            """
            with moved as (
                select ticket_id, min(available_at) as at
                from lake.staging.stg_incident__update
                where reassignment_count > 0
                group by ticket_id
            ),

            tickets as (
                select
                    *,
                    coalesce(moved.at <= spine.prediction_time + interval 3 days, false) as is_moved,
                    spine.prediction_time + interval 3 days as deadline
                from lake.spines.spn_ticket_opened as spine left join moved using (ticket_id)
            )

            select
                case when is_moved then 'moved' when deadline <= $now then 'stayed' else 'open' end as truth,
                label.label,
                count(*) > 50 as are_many,
                bool_and(label.available_at = case when is_moved then tickets.at else deadline end) as is_in_time
            from tickets left join lake.labels.lbl_reassigned as label using (ticket_id, prediction_time)
            group by all
            order by all
            """,
            {"now": FOUR_DAYS_IN},
        ).fetchall()
    assert seen == [("moved", True, True, True), ("open", None, True, None), ("stayed", False, True, True)]
