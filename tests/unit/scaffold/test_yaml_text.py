"""What is written as YAML is read back as it was."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiltyard.scaffold import yaml_text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_a_number(value: float) -> None:
    read = yaml.safe_load(yaml_text.scalar(value))
    assert isinstance(read, int | float) and math.isclose(read, value, rel_tol=1e-5), yaml_text.scalar(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [(3e6, "3000000"), (1.5e-7, "0.00000015"), (2e30, "2.0e+30"), (0.25, "0.25"), (-4e7, "-40000000")],
)
def test_a_number_reads_like_one(value: float, written: str) -> None:
    assert yaml_text.number(value) == written


@given(st.dictionaries(st.text(max_size=12), st.one_of(st.text(max_size=12), st.integers(), st.booleans()), max_size=5))
def test_a_mapping_on_one_line_is_read_back_with_its_names(values: dict[str, object]) -> None:
    """Names are users' as well: those of classes, like `a,b` or `say "no"`."""
    assert yaml.safe_load(yaml_text.mapping(values)) == values


@pytest.mark.parametrize("text", ["{{ user }}", "{% if %}", "{# note #}", "{{{{", "a {{{% b"])
def test_prose_is_no_template(text: str) -> None:
    read = yaml.safe_load(yaml_text.prose(text))
    assert not any(mark in read for mark in ("{{", "{%", "{#"))
    assert read.replace(" ", "") == text.replace(" ", "")
