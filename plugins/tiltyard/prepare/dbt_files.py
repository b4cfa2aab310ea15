"""The `.yml` files of the dbt project, of the shape that dbt and whoever reads them here take for granted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tiltyard.errors import BadInput
from tiltyard.spec import line_of, read_yaml

_LISTS = ("models", "sources", "tables", "columns")
"""Keys with a list of things that have a name."""
_MAPPINGS = ("config", "meta", "tiltyard")
"""Keys with a mapping, one below the other."""


def read(path: Path) -> tuple[yaml.Node | None, dict[str, Any]]:
    """A `.yml` with the places of its parts. Raises BadInput, with file and line, for what is none: models, sources,
    tables and columns are lists of things with a name, their `config.meta.tiltyard` is a mapping."""
    node, content = read_yaml(path)
    if content is None:
        return node, {}
    if not isinstance(content, dict):
        raise BadInput(
            f"{path}:1: this is a mapping with a list of models, or of sources, like other .yml files of dbt."
        )
    for loc, wrong in _faults(content, (), ""):
        raise BadInput(f"{path}:{line_of(node, loc)}: {wrong}.")
    return node, content


def is_template(text: str) -> bool:
    """Whether dbt would take a text of its files for a template, and fill it in."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def verbatim(sql: str) -> str:
    """SQL as dbt has to find it, so that nothing in it is filled in."""
    return f"{{% raw %}}{sql}{{% endraw %}}" if is_template(sql) else sql


def _faults(entry: dict[Any, Any], loc: tuple[Any, ...], what: str) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(place, what is wrong there) of a mapping, which is `what`, and what is below it."""
    yield from ((place, f"{what}{wrong}") for place, wrong in _mappings(entry, loc))
    for key in _LISTS:
        below, one = entry.get(key), key.removesuffix("s")
        if below is None:
            continue
        if not isinstance(below, list):
            yield (*loc, key), f"{key} is a list, each of it beginning with '- name:'"
            continue
        for number, part in enumerate(below):
            here = (*loc, key, number)
            if not isinstance(part, dict):
                yield here, f"every {one} begins with '- name:', unlike this"
            elif "name" not in part:
                yield (
                    here,
                    f"every {one} begins with '- name:', unlike this one with {', '.join(map(str, part))}",
                )
            elif not isinstance(part["name"], str):
                yield (*here, "name"), f"the name {part['name']!r} is no text; write it in quotation marks"
            else:
                yield from _faults(part, here, f"{one} '{part['name']}': ")
    if entry.get("data_type") is not None and not isinstance(entry["data_type"], str):
        yield (*loc, "data_type"), f"{what}data_type is the name of a type, like varchar"


def _mappings(entry: dict[Any, Any], loc: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The same of its config.meta.tiltyard."""
    for place, key in enumerate(_MAPPINGS, start=1):
        below = entry.get(key)
        loc = (*loc, key)
        if below is None:
            return
        if not isinstance(below, dict):
            yield (
                loc,
                f"{'.'.join(_MAPPINGS[:place])} is a mapping, like config: {{meta: {{tiltyard: {{planned: true}}}}}}",
            )
            return
        entry = below
