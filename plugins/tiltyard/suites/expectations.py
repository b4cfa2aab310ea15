"""Suites as they stand in YAML: the expectations of a file, checked as far as they can be without a batch.

Each expectation has a `severity` (critical stops, warning alerts) and says in `meta.why` what goes wrong without it.
"""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import JsonValue

from tiltyard.errors import BadInput
from tiltyard.yaml_files import SAFE_LOADER, read_yaml

Severity = Literal["critical", "warning"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning")
"""critical holds the table, warning alerts."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FUNCTIONS = {"abs", "round", "trunc", "sgn", "sin", "cos", "tan", "exp"}
ROW_COUNTS = ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal")
"""Expectations that look at no column; those that name columns look at these only."""
META = ("may_be_empty", "great_expectations_version")
"""What the `meta` of a suite may say: that a night may well have no row; the version that Great Expectations writes."""
COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
"""Arguments of an expectation that name columns."""


@dataclass(frozen=True)
class Expectation:
    """One expectation of a suite."""

    type: str
    """Great Expectations' name of it, like expect_column_values_to_not_be_null."""
    kwargs: Mapping[str, JsonValue]
    """Its arguments, in which {"$PARAMETER": name} stands for a value of the batch."""
    severity: Severity
    """critical holds the table, warning alerts."""
    meta: Mapping[str, JsonValue]
    """What goes wrong without it, under `why`, and what else the suite says of it."""
    line: int
    """Line of the YAML file on which it begins."""

    @property
    def why(self) -> str:
        """What goes wrong without it, on one line."""
        return " ".join(str(self.meta["why"]).split())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its arguments name."""
        columns: list[str] = []
        for argument in COLUMN_ARGUMENTS:
            value = self.kwargs.get(argument, [])
            columns += map(str, value if isinstance(value, list) else [value])
        return tuple(columns)


@dataclass(frozen=True)
class Suite:
    """The expectations of one YAML file, checked as far as they can be without a batch."""

    path: Path
    """The file."""
    meta: Mapping[str, Any]
    """What the file says of the suite as a whole."""
    expectations: tuple[Expectation, ...]
    """In the order of the file."""

    def where(self, index: int) -> str:
        """File and line of an expectation."""
        return f"{self.path}:{self.expectations[index].line}"


@functools.lru_cache(maxsize=256)
def _read(path: Path, modified_ns: int, is_accepted: bool) -> Suite:
    """The suite in `path`, read again when the file has changed."""
    node, content = read_yaml(path, SAFE_LOADER)
    if not isinstance(content, dict) or not isinstance(content.get("expectations"), list):
        raise BadInput(
            f"{path}:1: a suite is a mapping with a list of 'expectations', see expectations/freshness.yaml."
        )
    assert node is not None  # content is a mapping
    if not is_accepted:
        _check_meta(path, node)
    nodes = {key.value: value for key, value in node.value}
    for key, _ in node.value:
        if key.value not in ("name", "meta", "notes", "expectations"):
            raise BadInput(f"{path}:{key.start_mark.line + 1}: {key.value}: unknown field; is it a typo?")
    lines = [item.start_mark.line + 1 for item in nodes["expectations"].value]
    expectations = tuple(
        _expectation(path, line, entry) for line, entry in zip(lines, content["expectations"], strict=True)
    )
    return Suite(path, content.get("meta") or {}, expectations)


def _check_meta(path: Path, node: yaml.Node) -> None:
    """The `meta` of a suite says nothing that nobody reads. Raises BadInput with file and line."""
    meta = next((value for key, value in node.value if key.value == "meta"), None)
    for key, _ in meta.value if isinstance(meta, yaml.MappingNode) else ():
        where = f"{path}:{key.start_mark.line + 1}: meta.{key.value}"
        if key.value == "planned":
            raise BadInput(
                f"{where}: say it of the column in its .yml: config: {{meta: {{tiltyard: {{planned: true}}}}}}."
            )
        if key.value not in META:
            raise BadInput(f"{where}: unknown field{closest(key.value, META)}; a suite's are {', '.join(META)}.")


def load(path: Path, *, is_accepted: bool = False) -> Suite:
    """The suite in `path`. Raises BadInput with file and line for what GX would answer with a traceback.

    Of one that was accepted into a release before a word of its `meta` was one too many, the word is passed over: what
    is in force goes on, and is refused when it is to be accepted anew.
    """
    try:
        return _read(path, path.stat().st_mtime_ns, is_accepted)
    except FileNotFoundError:
        raise BadInput(f"There is no suite at {path}; write one, see expectations/freshness.yaml.") from None


def _expectation(path: Path, line: int, entry: Any) -> Expectation:
    """One entry of the YAML. Raises BadInput, with file and line, for what is no expectation."""
    where = f"{path}:{line}"
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise BadInput(f"{where}: an expectation is a mapping with type, kwargs, severity and meta.")
    kind = entry["type"]
    for key in entry:
        if key not in ("type", "kwargs", "severity", "meta"):
            raise BadInput(f"{where}: {kind}: {key}: unknown field; the fields are type, kwargs, severity and meta.")
    if entry.get("severity") not in SEVERITIES:
        raise BadInput(f"{where}: {kind}: severity must be critical (holds the table) or warning (alerts).")
    if not isinstance(entry.get("meta"), dict) or not str(entry["meta"].get("why") or "").strip():
        raise BadInput(f"{where}: {kind}: say in meta.why what goes wrong without this check.")
    kwargs = entry.get("kwargs", {})
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise BadInput(f"{where}: {kind}: kwargs must be a mapping of arguments by their names.")
    return Expectation(kind, entry.get("kwargs", {}), entry["severity"], entry["meta"], line)


def parameters(value: JsonValue) -> Iterator[str]:
    """Names used by $PARAMETER anywhere in an expectation's kwargs; `usual_rows * 0.3` uses usual_rows."""
    if isinstance(value, dict):
        if "$PARAMETER" in value:
            yield from (name for name in _NAME.findall(str(value["$PARAMETER"])) if name not in _FUNCTIONS)
        else:
            for part in value.values():
                yield from parameters(part)
    elif isinstance(value, list):
        for part in value:
            yield from parameters(part)


def closest(name: str, names: Sequence[str]) -> str:
    """The end of a sentence that names the closest of `names`; empty when none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{close[0]}'" if close else ""
