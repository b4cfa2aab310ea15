"""Values as YAML, the way that the house writes them by hand. Pure."""

import json
import re
from collections.abc import Iterable, Mapping

import yaml

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./%()-]*")


def scalar(value: object) -> str:
    """One value on its line: plain where YAML reads it back as the same text, or else in quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value) if isinstance(value, float) else str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text == text.strip() and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def number(value: float) -> str:
    """A number of six digits; to YAML `1e+06` is a text, and `1.0e+06` is none."""
    spelled = f"{value:.6g}"
    mantissa, exponent, power = spelled.partition("e")
    return f"{mantissa}.0{exponent}{power}" if exponent and "." not in mantissa else spelled


def prose(text: str) -> str:
    """A text for people, without what dbt would take for a template: the value of a column may look like one."""
    return re.sub(r"[{](?=[{%#])", "{ ", text)


def mapping(values: Mapping[str, object]) -> str:
    """A mapping on one line; values that are no scalars are mappings, lists, or text that is YAML already."""
    return "{" + ", ".join(f"{scalar(name)}: {_value(value)}" for name, value in values.items()) + "}"


def listed(values: Iterable[object]) -> str:
    """A list on one line."""
    return "[" + ", ".join(_value(value) for value in values) + "]"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return mapping(value)
    if isinstance(value, list | tuple):
        return listed(value)
    return scalar(value)


def columns(described: Iterable[tuple[str, str, str]], required: Iterable[str] = ()) -> str:
    """The columns of a table that dbt makes: (name, data_type, description), and which of them are never NULL."""
    never_null = set(required)
    lines = []
    for name, data_type, description in described:
        lines += [
            f"      - name: {name}",
            f"        data_type: {data_type}",
            f"        description: {scalar(prose(description))}",
        ]
        if name in never_null:
            lines.append("        constraints: [{type: not_null}]")
    return "\n".join(lines) + "\n"


def model(
    name: str, description: str, grain: Iterable[str], body: str, meta: Mapping[str, object] | None = None
) -> str:
    """The `.yml` of a table that dbt makes."""
    said = f"    config:\n      meta:\n        tiltyard: {mapping(meta)}\n" if meta else ""
    return (
        f"version: 2\n\nmodels:\n  - name: {name}\n    description: {scalar(prose(description))}\n{said}"
        f"    data_tests:\n      - one_row_per:\n          arguments: {{columns: [{', '.join(grain)}]}}\n"
        f"    columns:\n{body}"
    )
