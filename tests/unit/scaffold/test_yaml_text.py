"""What is written as YAML is read as what was meant, by YAML and by dbt."""

import pytest
import yaml

from tiltyard.scaffold.yaml_text import listed, mapping, number, prose, scalar


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6, 3e6, 2.75e6, -4e7, 1e-7, 2e-10, 1e22, 123456.0, 0.1])
def test_a_number_is_a_number_to_yaml(value: float) -> None:
    for written in (number(value), scalar(value)):
        found = yaml.safe_load(written)
        assert isinstance(found, int | float)
        assert found == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "text", ["a,b", 'say "no"', "it's", "a: b", "{x", "ü%", "yes", "1e5", "null", "#x", "a}", " a", ""]
)
def test_a_text_is_itself_as_a_key_and_as_a_value(text: str) -> None:
    assert yaml.safe_load(mapping({text: {text: text}})) == {text: {text: text}}
    assert yaml.safe_load(listed([text])) == [text]


@pytest.mark.parametrize("text", ["{{ user }}", "{% if %}", "{# note #}", "{{{{", "a {{{% b"])
def test_prose_is_no_template(text: str) -> None:
    assert not any(mark in prose(text) for mark in ("{{", "{%", "{#"))
    assert prose(text).replace(" ", "") == text.replace(" ", "")
