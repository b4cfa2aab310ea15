"""What the house promises of itself, and nothing else checks."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tiltyard.settings import ROOT

FOLDERS = ("plugins", "dags", "tests", "benchmarks", "docs")


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module's own lines give a value, each time they do."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_module_defines_a_name_once() -> None:
    twice = {}
    for folder in FOLDERS:
        for path in sorted(ROOT.glob(f"{folder}/**/*.py")):
            counts = Counter(defined(ast.parse(path.read_text(encoding="utf-8"))))
            if names := [name for name, count in counts.items() if count > 1]:
                twice[str(path.relative_to(ROOT))] = names
    assert not twice


def test_only_one_module_calls_a_reader_of_files() -> None:
    """A reader adds columns and guesses at what it finds, unless it is told not to. What is in memory already, and
    files of ours, pandas reads as they lie."""
    readers = r"read_(?:csv|parquet|json|ndjson|text|blob)\w*|sniff_csv|parquet_(?:scan|schema|\w*metadata)"
    reader = re.compile(rf"(?<!pd\.)\b(?:{readers})\s*\(")
    own = ROOT / "plugins" / "tiltyard" / "file_rows.py"
    assert len(reader.findall(own.read_text(encoding="utf-8"))) >= 5
    calls = {
        str(path.relative_to(ROOT)): found
        for path in sorted(ROOT.glob("plugins/**/*.py"))
        if path != own and (found := reader.findall(path.read_text(encoding="utf-8").replace(".read_text(", "")))
    }
    assert not calls


def test_the_readme_of_the_tests_names_files_that_exist() -> None:
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", text)
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()] == []
