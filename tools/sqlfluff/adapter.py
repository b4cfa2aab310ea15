"""What sqlfluff's templater knows of dispatched macros: each gives its first argument back."""

from collections.abc import Callable


def dispatch(name: str, package: str) -> Callable[..., object]:
    return lambda *arguments: arguments[0]
