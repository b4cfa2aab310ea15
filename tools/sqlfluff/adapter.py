"""What sqlfluff's templater knows of dbt's adapter: a dispatched macro gives its first argument back."""

from collections.abc import Callable


def dispatch(name: str, package: str) -> Callable[..., object]:
    return lambda *arguments: arguments[0]


def quote(name: str) -> str:
    return f'"{name}"'
