"""Specs against the dbt project's files; no database."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.lakes import small_spec
from tiltyard import spec as specs
from tiltyard.errors import BadInput
from tiltyard.prepare import project
from tiltyard.settings import ROOT, Settings


def changed(spec: specs.Spec, part: str, **values: object) -> specs.Spec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=values)})


def test_the_models_of_the_portfolio_fit_the_project() -> None:
    for spec in specs.load_all(ROOT / "models"):
        project.check_spec(project.read(Settings()), Settings(), spec)


def test_a_name_that_is_not_there_comes_with_those_that_are_close() -> None:
    spec = specs.find(ROOT / "models", "sla_breach")
    for part, values, message in (
        ("prediction", {"features": ("ftr_ticket__intak",)}, "'ftr_ticket__intak'; did you mean ftr_ticket__intake"),
        ("prediction", {"spine": "spn_ticket_open"}, "spine 'spn_ticket_open'; did you mean spn_ticket_opened"),
        ("label", {"table": "lbl_sla_breech"}, "label table 'lbl_sla_breech'; did you mean lbl_sla_breach"),
        ("prediction", {"features": ("ftr_customer__profile",)}, "keyed by customer_id, which the spine"),
        ("gate", {"slices": ("priorty",)}, "no feature view has a column 'priorty'; did you mean priority"),
        ("entity", "tickt", "the entity is tickt, but spn_ticket_opened has no column tickt_id"),
        ("source", "incidents", "no source 'incidents'; did you mean incident?"),
        ("label", {"horizon": timedelta(days=30)}, "label.horizon is 30d, but lbl_sla_breach is made for 10d"),
    ):  # fmt: skip
        other = changed(spec, part, **values) if isinstance(values, dict) else spec.model_copy(update={part: values})
        with pytest.raises(BadInput, match=message):
            project.check_spec(project.read(Settings()), Settings(), other)


def test_a_spec_of_another_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the dbt project has no spine 'spn_visit'"):
        project.check_spec(project.read(Settings()), Settings(), small_spec(tmp_path))


@pytest.mark.parametrize(
    ("kind", "old", "new", "reason"),
    [
        (
            "sql",
            "        amount_eur as last_amount_eur,\n",
            "",
            r"ftr_customer__payments.yml:23: ftr_customer__payments describes a column 'last_amount_eur', and "
            "ftr_customer__payments.sql does not give it",
        ),
        (
            "yml",
            "      - name: last_amount_eur\n        data_type: double\n"
            "        description: Amount of the last statement.\n",
            "",
            r"ftr_customer__payments.sql:\d+: ftr_customer__payments gives a column 'last_amount_eur', and "
            "ftr_customer__payments.yml does not describe it",
        ),
    ],
)
def test_sql_and_yml_that_disagree_are_named_with_file_and_line(
    tmp_path: Path, kind: str, old: str, new: str, reason: str
) -> None:
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    path = tmp_path / "dbt" / "models" / "features" / f"ftr_customer__payments.{kind}"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    settings = Settings(dbt=tmp_path / "dbt")
    read = project.read(settings)
    assert read.said.disagreements.keys() == {"ftr_customer__payments"}
    with pytest.raises(BadInput, match=reason):
        project.check_spec(read, settings, specs.find(ROOT / "models", "churn"))
    project.check_spec(read, settings, specs.find(ROOT / "models", "sla_breach"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Prediction", "'Prediction', which is the name of a column of Tiltyard's own"),
        ("loss", "'loss', which is the name of a column of Tiltyard's own"),
        ("known_at", "'known_at', which is the name of a column of Tiltyard's own"),
        ("rowid", "'rowid', which is the name of a column of Tiltyard's own"),
        ("_size", "'_size', whose name begins with an underscore"),
        ("'a \"b\"'", "which holds a quotation mark"),
        ("UNPAID_payments", "has the columns 'unpaid_payments' and 'UNPAID_payments', which are one to the lake"),
        ("Logins_7d", "ftr_customer__payments and ftr_customer__activity both have a feature Logins_7d"),
        ("limit", None),
        ("score", None),
        ("Größe in m²", None),
    ],
)
def test_a_name_that_is_ours_is_refused_and_any_other_is_not(tmp_path: Path, name: str, reason: str | None) -> None:
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    path = tmp_path / "dbt" / "models" / "features" / "ftr_customer__payments.yml"
    path.write_text(path.read_text().replace("name: last_amount_eur", f"name: {name}"))
    sql = path.with_suffix(".sql")
    sql.write_text(sql.read_text().replace("as last_amount_eur", f'as "{name}"'))
    settings = Settings(dbt=tmp_path / "dbt")
    read, spec = project.read(settings), specs.find(ROOT / "models", "churn")
    if reason is None:
        project.check_spec(read, settings, spec)
        return
    with pytest.raises(BadInput, match=reason):
        project.check_spec(read, settings, spec)


def test_two_files_that_would_make_one_table_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    folder = tmp_path / "dbt" / "models"
    shutil.copy(folder / "features" / "ftr_customer__payments.sql", folder / "labels")
    with pytest.raises(BadInput, match=r"labels/ftr_customer__payments.sql: .* makes a table 'ftr_customer__payments'"):
        project.read(Settings(dbt=tmp_path / "dbt"))


def test_the_shipped_project_agrees_with_itself() -> None:
    read = project.read(Settings())
    assert read.said.disagreements == {}
