"""Which columns the SQL of a table gives, as far as its text says without running it. Pure.

Of one `select` at the end the names of its items; `select * from final` is followed to the expression of that name, and
of a union the first part names the columns. Where anything is left open (a star of another table or of a join, what
Jinja writes or chooses), nothing is said.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_JINJA = "\ue000"
"""Stands for what a Jinja expression writes."""
_BLOCK = "\ue001"
"""Stands for a Jinja statement: what lies between two of them may be there or not."""
_TOKEN = re.compile(rf"'(?:[^']|'')*'|\"(?:[^\"]|\"\")+\"|(?:[^\W\d]|{_JINJA})[\w{_JINJA}]*|\d[\w.]*|\S|\n")
_WORD = re.compile(r"[^\W\d]\w*")
_QUOTE = "\ue002"
"""Begins a name in quotation marks that is no plain word, or is one of SQL's."""
_WORDS_OF_SQL = frozenset({"select", "from", "distinct", "all", "by", "as", "exclude", "with"})
_REF = re.compile(r"\{\{-?\s*(?:ref|source)\(.*?['\"](\w+)['\"]\s*\)\s*-?\}\}", re.DOTALL)
_SETS = frozenset({"union", "except", "intersect"})
_VALUES = frozenset({"null", "true", "false", "current_date", "current_timestamp"})
"""Words that are no columns."""
_ENDS = frozenset({"where", "group", "having", "order", "qualify", "window", "limit"})
"""Words that may follow the one table of a `from`."""


class GivenColumn(NamedTuple):
    """A column that a `select` gives."""

    name: str
    line: int


class _Token(NamedTuple):
    text: str
    line: int


def given(sql: str) -> tuple[GivenColumn, ...] | None:
    """The columns that the SQL of one of dbt's files gives, in its order; None where its text does not say."""
    tokens = _tokens(sql)
    expressions: dict[str, list[Sequence[_Token]]] = {}
    for name, body in _expressions(tokens):
        expressions.setdefault(name, []).append(body)
    return _given(tokens, expressions, frozenset())


def _tokens(sql: str) -> list[_Token]:
    def emptied(match: "re.Match[str]", instead: str = " ") -> str:
        return instead + "\n" * match[0].count("\n")

    text = re.sub(r"\{#.*?#\}", emptied, sql, flags=re.DOTALL)
    text = re.sub(r"\{\{-?\s*config\(.*?\)\s*-?\}\}", emptied, text, flags=re.DOTALL)
    text = _REF.sub(lambda match: emptied(match, match[1]), text)
    text = re.sub(r"\{\{.*?\}\}", lambda match: emptied(match, _JINJA), text, flags=re.DOTALL)
    text = re.sub(r"\{%.*?%\}", lambda match: emptied(match, f" {_BLOCK} "), text, flags=re.DOTALL)
    text = re.sub(r"/\*.*?\*/|--[^\n]*", emptied, text, flags=re.DOTALL)
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        if match[0] == "\n":
            line += 1
            continue
        tokens.append(_Token(_said(match[0]), line))
        line += match[0].count("\n")
    return tokens


def _said(token: str) -> str:
    """A token as it is compared: texts as they are, words in lower case, names without their quotation marks."""
    if token.startswith("'"):
        return token
    name = token.strip('"').lower()
    is_sqls = name in _WORDS_OF_SQL | _SETS | _VALUES | _ENDS or not _WORD.fullmatch(name)
    return _QUOTE + name if token.startswith('"') and is_sqls else name


def _expressions(tokens: Sequence[_Token]) -> "list[tuple[str, Sequence[_Token]]]":
    """(name, what stands in its brackets) of every common table expression at the top."""
    found = []
    place = 0
    while place < len(tokens):
        words = [token.text for token in tokens[place : place + 5]]
        if words[1:3] == ["as", "("] and _WORD.fullmatch(words[0]):
            end = _closing(tokens, place + 2)
            found.append((words[0], tokens[place + 3 : end]))
            place = end
        elif words[:1] == ["("]:
            place = _closing(tokens, place)
        place += 1
    return found


def _closing(tokens: Sequence[_Token], start: int) -> int:
    """The place of the bracket that closes the one at `start`; the end where there is none."""
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place].text == "(") - (tokens[place].text == ")")
        if depth == 0:
            return place
    return len(tokens)


def _given(
    tokens: Sequence[_Token], expressions: "dict[str, list[Sequence[_Token]]]", above: frozenset[str]
) -> tuple[GivenColumn, ...] | None:
    """The columns of the one `select` outside of brackets. `above`: the expressions that led here."""
    outside = _outside(tokens)
    sets = [place for place in outside if tokens[place].text in _SETS]
    if any(tokens[place].text == "by" for place in outside if sets and place in (sets[0] + 1, sets[0] + 2)):
        return None  # a union by name has the columns of both
    outside = [place for place in outside if not sets or place < sets[0]]
    selects = [place for place in outside if tokens[place].text == "select"]
    if len(selects) != 1:
        return None
    after = [place for place in outside if place > selects[0]]
    froms = (place for place in after if tokens[place].text == "from" and tokens[place - 1].text != "distinct")
    start = next(froms, sets[0] if sets else len(tokens))
    columns: list[GivenColumn] = []
    for item in _items(tokens[selects[0] + 1 : start]):
        if item[0].text == "*":
            left_out = _left_out(item)
            starred = _starred([tokens[place].text for place in after if place > start], expressions, above)
            if starred is None or left_out is None:
                return None
            columns += [column for column in starred if column.name not in left_out]
            continue
        name = _name([token.text for token in item])
        if name is None:
            return None
        columns.append(GivenColumn(name, item[-1].line))
    return tuple(columns)


def _outside(tokens: Sequence[_Token]) -> list[int]:
    """The places that stand in no brackets."""
    places, place = [], 0
    while place < len(tokens):
        places.append(place)
        place = _closing(tokens, place) if tokens[place].text == "(" else place
        place += 1
    return places


def _items(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """Parts between commas that stand in no brackets."""
    parts: list[list[_Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    if parts[0] and parts[0][0].text in ("distinct", "all"):
        parts[0] = parts[0][1:]
    return [part for part in parts if part]


def _starred(
    after: Sequence[str], expressions: "dict[str, list[Sequence[_Token]]]", above: frozenset[str]
) -> tuple[GivenColumn, ...] | None:
    """What a star takes: the columns of the one expression that is read; `after` stands after `from`."""
    if not after or (len(after) > 1 and after[1] not in _ENDS):
        return None
    name = after[0]
    if name in above or len(expressions.get(name, ())) != 1:
        return None
    return _given(expressions[name][0], expressions, above | {name})


def _left_out(item: Sequence[_Token]) -> frozenset[str] | None:
    """The columns that a star leaves out; None of one that does more than that."""
    words = [token.text for token in item]
    if len(words) == 1:
        return frozenset()
    is_list = words[1:3] == ["exclude", "("] and _closing(item, 2) == len(item) - 1
    return (
        frozenset(word.removeprefix(_QUOTE) for word in words[2:])
        if is_list or (words[1] == "exclude" and len(words) == 3)
        else None
    )


def _name(item: Sequence[str]) -> str | None:
    """The name that an item of a `select` has; None where its text does not say."""
    if _BLOCK in item:
        return None
    is_named = len(item) > 2 and item[-2] == "as"
    is_column = len(item) == 1 or (len(item) == 3 and item[1] == ".")
    if item[-1] in _VALUES and not is_named:
        return None
    is_name = item[-1].startswith(_QUOTE) or _WORD.fullmatch(item[-1])
    return item[-1].removeprefix(_QUOTE) if (is_named or is_column) and is_name else None
