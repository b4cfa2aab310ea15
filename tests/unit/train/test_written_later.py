"""What is declared needs no statistics: a column that is written later is stopped where it is used before it was
written, and one that is planned is never accused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clinic
from tests.conftest import make_settings
from tiltyard.rails import Rails

RULE = "no_feature_before_it_was_written"
Places = tuple[Rails, Path]


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("declared")
    with clinic.opened(make_settings(folder, postgres_url), folder, seed=3) as rails:
        yield rails, folder


@pytest.mark.parametrize("shape", clinic.LEAKS)
def test_what_was_written_later_is_stopped_where_it_is_used_before(declared: Places, shape: str) -> None:
    report = clinic.judged(*declared, shape)
    [failure] = [one for one in report.critical_failures if one.name == RULE]
    assert failure.column == "told"
    assert "written later" in failure.detail


@pytest.mark.parametrize("shape", clinic.HONEST)
def test_what_is_used_once_it_was_written_is_not(declared: Places, shape: str) -> None:
    assert clinic.accusations(clinic.judged(*declared, shape)) == []


@pytest.mark.parametrize("shape", clinic.PLANNED)
def test_what_is_planned_is_not_accused(declared: Places, shape: str) -> None:
    assert clinic.accusations(clinic.judged(*declared, shape)) == []


def test_where_nothing_is_said_the_statistics_take_a_plan_for_a_leak(tmp_path: Path, postgres_url: str) -> None:
    """So the test above could fail."""
    with clinic.opened(make_settings(tmp_path, postgres_url), tmp_path, seed=3, said=False) as rails:
        accused = [shape for shape in clinic.PLANNED if clinic.accusations(clinic.judged(rails, tmp_path, shape))]
        assert len(accused) >= 3, accused
        assert RULE not in {one.name for one in clinic.judged(rails, tmp_path, "carried").critical_failures}
