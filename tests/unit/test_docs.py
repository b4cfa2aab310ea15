"""The pages a person reads: generated ones are current, links lead somewhere, and every command is named."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tiltyard.settings import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md", *(ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    specification = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "spec.md"])
def test_a_generated_page_is_current(reference: ModuleType, name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == reference.PAGES[name](), "run make docs"


def test_the_readme_names_every_command(reference: ModuleType) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The command line")[1].split("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)
    }
    assert named == {words for words, _ in reference.commands()}


def test_every_command_has_an_example_of_itself(reference: ModuleType) -> None:
    for words, command in reference.commands():
        example = (command.epilog or "").removeprefix("Example: ")
        assert example.startswith(f"tiltyard {words}")


def test_every_command_but_serve_takes_json(reference: ModuleType) -> None:
    without = {
        words for words, command in reference.commands() if not any("--json" in each.opts for each in command.params)
    }
    assert without == {"serve"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_the_cells_of_its_head(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, f"{page.name}: a bar in a cell wants a backslash before it: {table.splitlines()[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _links(page):
        assert target.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in _anchors(target), f"{target.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"(?:`|python )([\w.-]+(?:/[\w.-]+)+\.(?:py|sql|yml))\b", page.read_text(encoding="utf-8")):
        if "reassigned" not in name and "shop" not in name:  # what the tutorial and add-a-source write
            places = [folder / name for folder in (ROOT, ROOT / "plugins" / "tiltyard", ROOT / "tests")]
            assert any(place.exists() for place in places), f"{page.name} names {name}, which does not exist"


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {target for target, _ in _links(index)}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions"} - linked == {index}


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http:", "https:")):
            path, _, anchor = link.partition("#")
            yield ((page.parent / path).resolve() if path else page), anchor


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_has_a_number_of_its_own_and_says_it() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for path in records:
        assert re.match(rf"# ({int(path.name[:4])}\. )?\S", path.read_text(encoding="utf-8")), path
