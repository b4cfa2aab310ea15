"""YAML as people write it: read strictly, within limits, and what is wrong is said with its line."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tiltyard.errors import BadInput

DEEPEST = 100
"""Levels of nesting that a text may have: a few thousand end the process."""
MOST = 100_000
"""Values that a text may have, those that an alias stands for counted wherever it stands."""


def _strict(base: Any) -> Any:
    """A loader of YAML that says the line of what is no value, and refuses a key that stands twice in one mapping."""

    class Loader(base):  # type: ignore[misc]
        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, OverflowError) as error:
                raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            keys: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"'{key.value}' stands there twice; take one away", key.start_mark
                        )
                    keys.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    return Loader


SAFE_LOADER = _strict(yaml.SafeLoader)
"""Names the line where text ends too early, not the next one."""
YAML_LOADER = _strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""libyaml's, where it is there: a hundred specs in a tenth of the time."""


def read_yaml(path: Path, loader: Any = YAML_LOADER) -> tuple[yaml.Node | None, Any]:
    """A YAML file with the places of its parts. Raises BadInput with the line when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text, loader)
        reader = loader(text)
        try:
            node = reader.get_single_node()
            _check_size(node)
            return node, None if node is None else reader.construct_document(node)
        finally:
            reader.dispose()
    except FileNotFoundError:
        raise  # whoever asks knows what it means that there is none
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); put a file there.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a text that is no YAML: at the line where what does not end begins, since the line where the
    parser notices is often the next one, which is right."""
    problem = getattr(error, "problem", None) or error
    if isinstance(error, yaml.reader.ReaderError):
        number = error.character if isinstance(error.character, int) else ord(error.character)
        line = path.read_bytes().count(b"\n", 0, int(error.position)) + 1
        return f"{path}:{line}: not readable as YAML (it holds the character #x{number:04x})."
    noticed, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if noticed is None:
        return f"{path}: not readable as YAML ({problem})."
    if (
        begun is None
        or begun.line == noticed.line
        or not re.search("simple key|flow|quoted", str(getattr(error, "context", "")))
    ):
        return f"{path}:{noticed.line + 1}: not readable as YAML ({problem})."
    return f"{path}:{begun.line + 1}: not readable as YAML ({problem} before line {noticed.line + 1})."


def _check_depth(text: str, loader: Any) -> None:
    """Raises YAMLError for a text that is nested too deep to be read: libyaml reads it without end and crashes."""
    if len(text) < 4_000:  # too short to be so deep that it matters
        return
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels deep")


def _check_size(node: yaml.Node | None) -> None:
    """Raises YAMLError for aliases that name what they stand in, or that make more of a text than anybody reads: ten
    lines of them are 10**10 values to whoever looks at each."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(part: yaml.Node) -> int:
        if id(part) in above:
            raise yaml.constructor.ConstructorError(None, None, "it stands in itself", part.start_mark)
        if id(part) not in sizes:
            above.add(id(part))
            below = part.value if isinstance(part, yaml.CollectionNode) else ()
            entries = (each for entry in below for each in (entry if isinstance(entry, tuple) else (entry,)))
            sizes[id(part)] = 1 + sum(map(size, entries))
            above.remove(id(part))
        if sizes[id(part)] > MOST:
            raise yaml.constructor.ConstructorError(None, None, f"more than {MOST:,} values", part.start_mark)
        return sizes[id(part)]

    if node is not None:
        size(node)


def problems(path: Path, node: yaml.Node | None, error: ValidationError, under: tuple[str, ...] = ()) -> str:
    """What is wrong in a YAML file, each with its line. `under`: where in the file the validated part lies."""
    details = [{**detail, "loc": (*under, *detail["loc"])} for detail in error.errors()[:5]]
    return "; ".join(_problem(path, node, detail) for detail in details)


def _problem(path: Path, node: yaml.Node | None, detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "spec"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown field; is it a typo?"
    elif detail["type"] == "missing":
        message = "this field is missing"
    elif detail["type"] == "string_pattern_mismatch":
        message = f"{detail['input']!r} is no name for it; {_spelled(detail['loc'])}"
    return f"{path}:{line_of(node, detail['loc'])}: {where}: {message}"


def _spelled(loc: tuple[Any, ...]) -> str:
    """How a name is written there."""
    forms = {
        "spine": "spn_<what>, in lower case, <what> of 58 characters at most",
        "features": "ftr_<entity>__<topic>, in lower case, <topic> of 40 characters at most",
        "popular": "pop_<what>, in lower case, <what> of 58 characters at most",
        "table": "lbl_<what>, in lower case, <what> of 58 characters at most",
    }
    form = next((forms[part] for part in loc if part in forms), None)
    return f"write {form or 'lower-case letters, digits and underscores, a letter first, 48 at most'}"


def line_of(node: yaml.Node | None, loc: tuple[Any, ...]) -> int:
    """The line of the deepest part of `loc` that the YAML text has."""
    line = node.start_mark.line + 1 if node else 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
