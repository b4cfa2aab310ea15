"""A `.yml` of another shape than dbt's is refused with file and line, before anybody takes it for granted."""

from pathlib import Path

import duckdb
import jinja2
import pytest
import yaml

from tiltyard.errors import BadInput
from tiltyard.prepare import dbt_files
from tiltyard.target import literal
from tiltyard.yaml_files import MOST, read_yaml


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("- name: x\n", 1, "a mapping with a list of models"),
        ("version: 2\nmodels: {name: x}\n", 2, "models is a list"),
        ("models:\n  - name: x\n  - ftr_y\n", 3, "every model begins with '- name:'"),
        ("models:\n  - name: x\n  - columns: []\n", 3, "unlike this one with columns"),
        ("models:\n  - name: x\n    columns:\n      - name: on\n", 4, "the name True is no text"),
        ("models:\n  - name: x\n    columns:\n      - {name: [a]}\n", 4, "is no text"),
        ("models:\n  - name: x\n    columns: size\n", 3, "columns is a list"),
        ("models:\n  - name: x\n    config: {meta: {tiltyard: planned}}\n", 3, "tiltyard is a mapping"),
        (
            "sources:\n  - name: x\n    tables:\n      - {name: y, columns: [{name: z, data_type: [a]}]}\n",
            4,
            "data_type",
        ),
        ("models:\n  - name: x\n    description: a\x07b\n", 3, "holds the character #x0007"),
        ("models:\n  - name: x\n    description: 'of {{ user }}'\n", 3, "nothing is called user"),
        ("models:\n  - name: x\n    description: 'of {% if %}'\n", 3, "'of {% if %}' for a Jinja template"),
        ("models:\n  - name: x\n    config: {meta: {tiltyard: {header: 'a {{ b'}}}\n", 3, "{% raw %} before it"),
        ("models:\n  - &x {name: x, columns: [*x]}\n", 2, "it stands in itself"),
    ],
)
def test_what_is_no_file_of_dbt_is_named_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        dbt_files.read(path)
    assert str(refused.value).startswith(f"{path}:{line}: ") and says in str(refused.value), refused.value


@pytest.mark.parametrize(
    "text", ["", "version: 2\n", "models:\n", "models: []\n", "models:\n  - {name: x, columns: }\n"]
)
def test_what_says_little_is_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    assert isinstance(dbt_files.read(path)[1], dict)


def test_aliases_of_aliases_are_no_text_that_anybody_reads(tmp_path: Path) -> None:
    """Nine lines of nine aliases each stand for a billion values."""
    path = tmp_path / "laughs.yml"
    lines = ["a: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    path.write_text("\n".join(lines))
    with pytest.raises(BadInput, match=f"more than {MOST:,} values"):
        read_yaml(path)
    path.write_text("base: &base {a: 1}\none: {<<: *base, b: 2}\nmany: [*base, *base]\n")
    assert read_yaml(path)[1]["one"] == {"a": 1, "b": 2}, "an alias or two is as good as ever"


@pytest.mark.parametrize("text", ["{{ user }}", "{% if %}", "a {# b", "{{{x}}}", "{%{{{#", "{a} % #", ""])
def test_what_looks_like_a_template_is_read_back_as_it_is_and_dbt_reads_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    written = dbt_files.literally(text)
    path.write_text(yaml.safe_dump({"models": [{"name": "x", "config": {"meta": {"tiltyard": {"header": written}}}}]}))
    assert dbt_files.read(path)[1]["models"][0]["config"]["meta"]["tiltyard"]["header"] == text
    assert jinja2.Environment().from_string(written).render() == text
    shown = jinja2.Environment().from_string(dbt_files.apart(text)).render()
    assert shown.replace(" ", "") == text.replace(" ", "")
    query = jinja2.Environment().from_string(dbt_files.literally(literal(text))).render()
    assert duckdb.execute(f"select {query}").fetchone() == (text,)


def test_templates_that_dbt_reads_are_let_through(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    described = "of {{ doc('x') }} and {{ env_var('HOME') }}"
    path.write_text(yaml.safe_dump({"models": [{"name": "x", "description": described, "data_tests": ["{{ ref }}"]}]}))
    assert dbt_files.read(path)[1]["models"][0]["description"] == described
