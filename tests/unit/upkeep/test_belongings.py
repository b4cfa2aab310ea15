"""What belongs to a model or a source of the shipped checkout, and to nobody else."""

import pytest

from tiltyard import release
from tiltyard.release import Texts
from tiltyard.settings import Settings
from tiltyard.upkeep import belongings

EXPOSURES = "dbt/models/_models__exposures.yml"


@pytest.fixture(scope="module")
def texts() -> Texts:
    return release.working(Settings())


def with_text(texts: Texts, **changed: str) -> Texts:
    return {**texts, **{path: text.encode() for path, text in changed.items()}}


def test_a_model_goes_with_its_tables_and_its_exposure_and_nothing_of_its_source(texts: Texts) -> None:
    found = belongings.of_model("churn", texts)
    assert found.tables == {
        "spn_customer_reviewed", "lbl_churn",
        *(f"ftr_customer__{topic}" for topic in ("activity", "payments", "profile")),
    }  # fmt: skip
    assert {"models/churn/spec.yaml", "models/churn/card.md", "dbt/models/labels/lbl_churn.sql"} <= found.files
    assert not any("staging" in path for path in found.files)
    assert found.kept == {}
    before = texts[EXPOSURES].decode()
    entry = before[before.index("  - name: churn\n") : before.index("  - name: customer_repurchase\n")]
    assert found.edited == {EXPOSURES: before.replace(entry, "")}


def test_a_table_that_another_model_names_stays_and_so_does_what_that_is_made_of(texts: Texts) -> None:
    spec = texts["models/churn/spec.yaml"].decode()
    twice = with_text(texts, **{"models/twin/spec.yaml": spec.replace("lbl_churn", "lbl_twin")})
    found = belongings.of_model("churn", twice)
    assert found.tables == {"lbl_churn"}
    assert found.kept["spn_customer_reviewed"] == "the model twin"
    sql = "select * from {{ ref('lbl_churn') }}"
    assert belongings.of_model("churn", with_text(twice, **{"dbt/models/features/ftr_x__y.sql": sql})).tables == set()


def test_a_table_that_only_a_called_macro_names_is_read_by_whoever_calls_it(texts: Texts) -> None:
    caller = "dbt/models/features/ftr_caller__history.sql"
    assert "lbl_sla_breach" not in texts[caller].decode(), "it reads the labels through a macro"
    others = {path: content for path, content in texts.items() if path != "models/sla_breach/spec.yaml"}
    spec = texts["models/sla_breach/spec.yaml"].decode().replace("ftr_caller__history, ", "")
    found = belongings.of_model("sla_breach", with_text(others, **{"models/sla_breach/spec.yaml": spec}))
    assert found.kept["lbl_sla_breach"] == "ftr_caller__history"
    assert "ftr_caller__history" in belongings.of_source("incident", texts).tables


def test_a_comment_names_nothing(texts: Texts) -> None:
    path = "dbt/models/features/ftr_caller__history.sql"
    said = texts[path].decode() + "\n-- like lbl_churn\n{# and spn_customer_reviewed #}\n/* ftr_customer__profile */"
    assert belongings.of_model("churn", with_text(texts, **{path: said})).kept == {}


def test_a_source_that_a_model_reads_says_who_and_through_what(texts: Texts) -> None:
    found = belongings.of_source("subscription", texts)
    assert found.readers == ("the model churn reads it, through ftr_customer__activity; remove churn first.",)
    without = {path: content for path, content in texts.items() if not path.startswith("models/churn/")}
    assert belongings.of_source("subscription", without).readers == ()
    named = with_text(without, **{"models/other/spec.yaml": "source: subscription  # soon\n"})
    assert belongings.of_source("subscription", named).readers == (
        "the model other names it as its source; remove other first.",
    )


def test_what_is_made_of_a_source_and_read_by_no_model_goes_with_it(texts: Texts) -> None:
    without = {path: content for path, content in texts.items() if not path.startswith("models/sla_breach/")}
    found = belongings.of_source("incident", without)
    assert {"stg_incident__update", "spn_ticket_opened", "ftr_group__history"} <= found.tables
    assert {"dbt/tests/point_in_time_agrees.sql", "expectations/features/ftr_group__load.yaml"} <= found.files
    assert not any("hotels" in path or "subscription" in path for path in found.files)


def test_a_yml_of_several_tables_keeps_those_that_stay_and_one_of_none_goes(texts: Texts) -> None:
    yml = "version: 2\n\nmodels:\n  - name: lbl_churn\n    description: x\n\n  - name: lbl_other\n    description: y\n"
    found = belongings.of_model("churn", with_text(texts, **{"dbt/models/labels/_labels.yml": yml}))
    rest = "version: 2\n\nmodels:\n  - name: lbl_other\n    description: y\n"
    assert found.edited["dbt/models/labels/_labels.yml"] == rest
    alone = with_text(texts, **{"dbt/models/labels/_labels.yml": yml.split("\n\n  - name: lbl_other")[0] + "\n"})
    assert "dbt/models/labels/_labels.yml" in belongings.of_model("churn", alone).files
