"""What an installation gets: the dependencies of pyproject.toml, which the lock satisfies, and the types."""

import itertools
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tiltyard.settings import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE)
    }
    groups = (PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values())
    for text in itertools.chain(*groups):
        requirement = Requirement(text)
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"requirements.txt does not have {requirement.name}; run make lock"
        assert requirement.specifier.contains(version), f"requirements.txt has {version} for {text}; run make lock"


def test_the_types_are_part_of_the_package() -> None:
    assert (files("tiltyard") / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["tiltyard"]


@pytest.mark.parametrize("name", ["point_in_time.sql", "answers.sql", "written.sql"])
def test_the_joins_sql_is_part_of_the_package_and_stands_in_one_place(name: str) -> None:
    packed = files("tiltyard") / "prepare" / name
    assert Path(str(packed)).resolve() == (ROOT / "dbt" / "macros" / name).resolve()


def test_the_licence_is_there_whole() -> None:
    text = (ROOT / PROJECT["project"]["license-files"][0]).read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
