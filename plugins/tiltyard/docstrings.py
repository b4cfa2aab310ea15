"""The text that stands under an attribute, read from the source.

Python keeps no docstring of an attribute. Pydantic can read them while it builds a class, which costs 40 ms at every
import of `spec`; here they are read when somebody asks for a schema or a page of the reference.
"""

import ast
import inspect
from itertools import pairwise
from types import ModuleType


def of_attributes(module: ModuleType) -> dict[tuple[str, str], str]:
    """Texts by (class, attribute), for every class of `module`."""
    tree = ast.parse(inspect.getsource(module))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {(node.name, attribute): text for node in classes for attribute, text in _in_class(node)}


def _in_class(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (statement.target.id, inspect.cleandoc(following.value.value))
        for statement, following in pairwise(node.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    ]
