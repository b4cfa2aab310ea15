"""The `.yml` files of the dbt project, of the shape that dbt and whoever reads them here take for granted.

dbt takes every text in them for a Jinja template. One that dbt cannot read stops the whole project, and dbt does not
always say where it stands, so it is found here, before dbt looks.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import yaml

from tiltyard.errors import BadInput
from tiltyard.yaml_files import line_of, read_yaml

_LISTS = ("models", "sources", "tables", "columns")
"""Keys with a list of things that have a name."""
_MAPPINGS = ("config", "meta", "tiltyard")
"""Keys with a mapping, one below the other."""
_OPENS = re.compile(r"\{(?=[{%#])")
"""Where a template begins what is none."""
_RAW = re.compile(r"\{% raw %\}(.*)\{% endraw %\}", re.DOTALL)
_KNOWN = frozenset({"doc", "env_var", "var", "target", "project_name", "dbt_version", "run_started_at", "modules"})
"""What dbt lets a description name, and what is said beside it."""
_JINJA = jinja2.Environment(extensions=["jinja2.ext.do"])


def read(path: Path) -> tuple[yaml.Node | None, dict[str, Any]]:
    """A `.yml` with the places of its parts; a text that dbt is told to take as it is (`literally`) as it is. Raises
    BadInput, with file and line, for what is none: models, sources, tables and columns are lists of things with a name,
    their `config.meta.tiltyard` is a mapping, and a text with {{, {% or {# in it is a template that dbt can read."""
    node, content = read_yaml(path)
    if content is None:
        return node, {}
    if not isinstance(content, dict):
        raise BadInput(
            f"{path}:1: this is a mapping with a list of models, or of sources, like other .yml files of dbt."
        )
    for loc, wrong in _faults(content, (), ""):
        raise BadInput(f"{path}:{line_of(node, loc)}: {wrong}.")
    for loc, text in _texts(content, ()):
        if _OPENS.search(text) and (misread := _no_template(text, not {"description", "meta"}.isdisjoint(loc))):
            shown = text if len(text) <= 60 else f"{text[:57]}…"
            raise BadInput(
                f"{path}:{line_of(node, loc)}: dbt takes '{shown}' for a Jinja template, and it is none ({misread}); "
                "leave a blank between its braces, or write {% raw %} before it and {% endraw %} after it."
            )
    return node, _as_they_are(content)


def apart(text: str) -> str:
    """A text for people, in which nothing looks like a template."""
    return _OPENS.sub("{ ", text)


def literally(text: str) -> str:
    """A text of a `.yml`, or SQL, that has to stay what it is, as `read` and dbt both read it back."""
    return f"{{% raw %}}{text}{{% endraw %}}" if _OPENS.search(text) else text


def _texts(content: Any, loc: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(place, text) of every text."""
    if isinstance(content, str):
        yield loc, content
    elif isinstance(content, dict):
        for key, below in content.items():
            yield from _texts(below, (*loc, key))
    elif isinstance(content, list):
        for number, below in enumerate(content):
            yield from _texts(below, (*loc, number))


def _no_template(text: str, is_told: bool) -> str | None:
    """Why dbt cannot read a text as a template; None where it can, as far as is known before it tries."""
    try:
        named = jinja2.meta.find_undeclared_variables(_JINJA.parse(text))
    except jinja2.TemplateSyntaxError as error:
        return (error.message or "its syntax").rstrip(".")
    unknown = named - _KNOWN if is_told else set()
    return f"nothing is called {min(unknown)}" if unknown else None


def _as_they_are(content: Any) -> Any:
    """The same with every text that is marked by `literally` as it is."""
    if isinstance(content, str):
        return marked[1] if (marked := _RAW.fullmatch(content)) else content
    if isinstance(content, dict):
        return {key: _as_they_are(below) for key, below in content.items()}
    return [_as_they_are(below) for below in content] if isinstance(content, list) else content


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
