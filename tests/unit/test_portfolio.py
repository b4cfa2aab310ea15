"""Every model of the portfolio against the dbt project: its tables, and its exposure."""

import pytest
import yaml

from tiltyard.prepare import project
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, load_all

SPECS = load_all(ROOT / "models")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_dbt_project_has_what_the_spec_names(spec: Spec) -> None:
    project.check_spec(project.read(Settings()), Settings(), spec)


def test_every_model_is_an_exposure_of_the_tables_that_it_reads() -> None:
    exposures = yaml.safe_load((ROOT / "dbt" / "models" / "_models__exposures.yml").read_text())["exposures"]
    read = {exposure["name"]: sorted(exposure["depends_on"]) for exposure in exposures}
    named = {
        spec.name: sorted(
            f"ref('{table}')"
            for table in (
                spec.prediction.spine,
                *spec.prediction.features,
                spec.label.table,
                *([spec.fallback.popular.table] if spec.fallback.popular else []),
            )
        )
        for spec in SPECS
    }
    assert read == named
