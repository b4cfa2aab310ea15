"""Which column is made of which, read from the SQL of the dbt project as it is written. Pure.

It is no parser of SQL. Of every `select` it takes the items and the names in them, and what a Jinja call is given
counts as named. Common table expressions of one file share their names. So a column may seem to be made of one that it
is not, and seldom the other way round, which is the side to err on for whoever looks for what is told too early. A
table whose columns a macro writes is made of everything that the macro's tables have.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Made = Literal["same", "made", "counted", "chosen"]
"""How a column comes from another: the same value, or one of several (a cast, `max`); made of it, row by row; counted
over several rows; or the other one says only which rows there are (`where`, `join`, `group by`)."""
_ORDER: tuple[Made, ...] = ("same", "made", "counted", "chosen")
_KEEPS = frozenset({"cast", "try_cast", "nullif", "max", "min", "any_value", "first", "last", "mode"})
"""Functions of one column whose result is a value of it."""
_COUNTS = frozenset(
    {
        "count", "sum", "avg", "mean", "median", "mode", "max", "min", "any_value", "first", "last", "arg_max",
        "arg_min", "max_by", "min_by", "bool_or", "bool_and", "list", "array_agg", "string_agg", "histogram",
        "stddev", "variance", "over", "filter", "row_number", "rank", "lag", "lead", "first_value",
        "last_value", "quantile", "quantile_cont", "quantile_disc", "approx_quantile", "approx_count_distinct",
        "product", "entropy",
    }
)  # fmt: skip
_KEYWORDS = frozenset(
    {
        "select", "distinct", "all", "as", "from", "where", "group", "by", "having", "order", "qualify",
        "window", "union", "except", "intersect", "case", "when", "then", "else", "end", "and", "or", "not",
        "is", "null", "in", "between", "like", "true", "false", "cast", "try_cast", "over", "filter",
        "partition", "rows", "range", "preceding", "following", "current", "row", "asc", "desc", "nulls",
        "interval", "timestamptz", "timestamp", "date", "inner", "left", "right", "full", "outer", "asof",
        "join", "on", "using", "with", "recursive", "exclude", "replace", "limit", "unbounded", "epoch",
        "second", "minute", "hour", "day", "week", "month", "quarter", "year", "isodow", "dow",
    }
)  # fmt: skip
_PARTS = frozenset(
    {"second", "minute", "hour", "day", "week", "month", "quarter", "year", "date", "row", "first", "last"}
)
"""Words of SQL that columns are called by, too."""
_TAILS = frozenset({"union", "except", "intersect", "window"})
_TOKEN = re.compile(r"[^\W\d]\w*|\"(?:[^\"]|\"\")+\"|\d[\w.]*|::|<>|<=|>=|!=|\|\||\S")
_WORD = re.compile(r"[^\W\d]\w*")
_QUOTE = "\ue002"
"""Begins a name that stands in quotation marks, which is no keyword whatever it is called."""
_CALL = re.compile(r"\{\{-?\s*([\w.]+)\s*(\(.*?\))?\s*-?\}\}", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One item of a `select`: a name, and the words that it is made of."""

    name: str
    words: frozenset[str]
    made: Made


@dataclass(frozen=True)
class Query:
    """The SQL of one table, as far as columns are concerned."""

    tables: frozenset[str]
    """Every table that it, or a macro that it calls, names."""
    items: Mapping[str, tuple[Item, ...]]
    """Name → what is called so anywhere in it."""
    has_star: bool
    """Whether all columns of something are taken."""
    dropped: frozenset[str]
    """Columns that a star leaves out."""
    chosen_by: frozenset[str]
    """What the rows of a star are chosen by."""

    @property
    def is_written_here(self) -> bool:
        """Whether there is a `select` at all, and not the call of a macro alone."""
        return bool(self.items) or self.has_star


@dataclass(frozen=True)
class Step:
    """A column of another table, and how the one that was asked for comes from it."""

    table: str
    column: str
    made: Made


@dataclass(frozen=True)
class ColumnLineage:
    """What every table has, and what its columns are made of."""

    raw: Mapping[str, frozenset[str]]
    """Raw table, like `raw.login` → its columns."""
    queries: Mapping[str, Query]
    """Table that dbt makes → its SQL."""
    described: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Table that dbt makes → the columns that its .yml describes."""

    def has(self, table: str, column: str) -> bool | None:
        """Whether a table has a column; None where its SQL does not say (a macro writes it)."""
        if table in self.raw:
            return column.lower() in self.raw[table]
        query = self.queries.get(table)
        if query is None or not query.is_written_here:
            return None
        column = column.lower()
        if column in query.items:
            return True
        if not query.has_star or column in query.dropped:
            return False
        answers = [self.has(parent, column) for parent in sorted(query.tables)]
        return True if any(answers) else (None if None in answers else False)

    def steps(self, table: str, column: str) -> tuple[Step, ...]:
        """The columns of other tables that this one is made of, directly; none of a raw table's, or of times."""
        query = self.queries.get(table)
        if query is None:
            return ()
        if not query.is_written_here:
            named = ((parent, name.lower()) for parent in sorted(query.tables) for name in sorted(self.columns(parent)))
            return tuple(Step(parent, name, "counted") for parent, name in named)
        words = _resolved(query, column.lower())
        return tuple(
            Step(parent, word, made)
            for word, made in words.items()
            for parent in sorted(query.tables)
            if self.has(parent, word)
        )

    def columns(self, table: str) -> frozenset[str]:
        """The columns that come out of a table: those that its `.yml` describes, else all that its SQL may have."""
        described = self.raw.get(table) or self.described.get(table)
        query = self.queries.get(table)
        if described or query is None:
            return described or frozenset()
        known = frozenset(query.items)
        if query.has_star or not query.is_written_here:
            known |= frozenset[str]().union(*(self.columns(parent) for parent in query.tables)) - query.dropped
        return known


def worse(first: Made, second: Made) -> Made:
    """How a column comes from another by two steps."""
    return max(first, second, key=_ORDER.index)


def _resolved(query: Query, column: str) -> dict[str, Made]:
    """Word → how the column comes from it, through the names that the file itself gives."""
    found: dict[str, Made] = {}
    waiting: list[tuple[str, Made]] = [(column, "same")]
    visited: set[tuple[str, Made]] = set()
    while waiting:
        name, made = step = waiting.pop()
        if step in visited:
            continue
        visited.add(step)
        items = query.items.get(name, ())
        if not items:
            _least(found, name, made)
        elif query.has_star and not any(name in item.words for item in items):
            _least(found, name, worse(made, "counted"))  # of another table of a union, perhaps
        for item in items:
            for word in item.words:
                if word == name:  # as it is, or made anew under its own name
                    _least(found, word, worse(made, item.made))
                else:
                    waiting.append((word, worse(made, item.made)))
        waiting += [(word, "chosen") for word in query.chosen_by]
    return found


def _least(found: dict[str, Made], word: str, made: Made) -> None:
    """Keep the straightest way from a word."""
    found[word] = min(found.get(word, made), made, key=_ORDER.index)


# -- reading SQL ------------------------------------------------------------------------------


def read(sql: str, tables: Mapping[str, str], macros: Mapping[str, str]) -> Query:
    """The SQL of one of dbt's files. `tables`: name, as `ref` and `source` give it → table, as
    the lake calls it; `macros`: name → text."""
    text = re.sub(r"\{#.*?#\}", " ", sql, flags=re.DOTALL)
    named = frozenset(_named(text, tables, macros, set()))
    text = re.sub(r"\{%.*?%\}", " ", text, flags=re.DOTALL)
    text = re.sub(r"/\*.*?\*/|--[^\n]*", " ", _CALL.sub(_call, text), flags=re.DOTALL)
    text = re.sub(r"'(?:[^']|'')*'", " ", text)
    tokens = [_QUOTE + token[1:-1].lower() if token[0] == '"' else token.lower() for token in _TOKEN.findall(text)]
    items: dict[str, list[Item]] = {}
    has_star = False
    dropped: set[str] = set()
    of_stars: set[str] = set()
    for select, tail in _selects(tokens):
        chosen_by = frozenset(_words(tail)) - tables.keys()
        for part in _split(select):
            if part[0] == "*" or part[1:3] == [".", "*"]:
                has_star = True
                dropped |= _excluded(part)
                of_stars |= chosen_by
                for replaced in _split(_inside(part, "replace")):
                    _add(items, replaced, chosen_by)
            else:
                _add(items, part, chosen_by)
    by_name = {name: tuple(parts) for name, parts in items.items()}
    return Query(named, by_name, has_star, frozenset(dropped), frozenset(of_stars))


def _named(text: str, tables: Mapping[str, str], macros: Mapping[str, str], seen: set[str]) -> Iterator[str]:
    """The tables that a text, and the macros that it calls, name in quotes."""
    for call in re.findall(r"\{[{%].*?[}%]\}", text, flags=re.DOTALL):
        yield from (tables[name] for name in re.findall(r"['\"](\w+)['\"]", call) if name in tables)
        for macro in _WORD.findall(call):
            if macro in macros and macro not in seen:
                seen.add(macro)
                yield from _named(macros[macro], tables, macros, seen)


def _call(match: "re.Match[str]") -> str:
    """A Jinja expression as SQL: a table by its name; of anything else the names that it is given, in brackets."""
    function, given = match[1], match[2] or ""
    texts = re.findall(r"['\"]([^'\"]*)['\"]", given)
    if function in ("ref", "source") and texts:
        return f" {texts[-1]} "
    if function == "config":
        return " "
    words = [word for part in texts for word in _WORD.findall(part)]
    words += _WORD.findall(re.sub(r"['\"][^'\"]*['\"]", " ", given))
    return f" (jinja {' '.join(words)}) "


def _selects(tokens: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """(the items, what comes after them) of every `select`, whatever it stands in."""
    for start, token in enumerate(tokens):
        if token != "select":
            continue
        depth, end, begun = 0, len(tokens), None
        for place in range(start + 1, len(tokens)):
            here = tokens[place]
            depth += (here == "(") - (here == ")")
            if depth < 0 or (depth == 0 and here in _TAILS):
                end = place
                break
            if depth == 0 and here == "from" and tokens[place - 1] != "distinct" and begun is None:
                begun = place
        skip = 2 if tokens[start + 1 : start + 2] in (["distinct"], ["all"]) else 1
        yield tokens[start + skip : begun or end], tokens[begun or end : end]


def _split(tokens: Sequence[str]) -> list[list[str]]:
    """Parts between commas that stand in no brackets."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _inside(tokens: Sequence[str], word: str) -> Sequence[str]:
    """What stands in the brackets after a word."""
    if word not in tokens:
        return ()
    start, depth = tokens.index(word) + 1, 0
    for place in range(start, len(tokens)):
        depth += (tokens[place] == "(") - (tokens[place] == ")")
        if depth == 0:
            return tokens[start + 1 : place]
    return ()


def _excluded(tokens: Sequence[str]) -> set[str]:
    """The columns that a star leaves out: one, or several in brackets."""
    if "exclude" not in tokens:
        return set()
    inside = {_name(token) for token in _inside(tokens, "exclude") if _is_word(token)}
    return inside or {_name(tokens[tokens.index("exclude") + 1])}


def _add(items: dict[str, list[Item]], tokens: Sequence[str], chosen_by: frozenset[str]) -> None:
    """An item under the name that it is given, and what its rows are chosen by."""
    if len(tokens) > 2 and tokens[-2] == "as":
        name, tokens = _name(tokens[-1]), tokens[:-2]
    elif _is_word(tokens[-1]) and (len(tokens) == 1 or tokens[-2:-1] == ["."]):
        name = _name(tokens[-1])
    else:
        return
    words = frozenset(_words(tokens))
    own = items.setdefault(name, [])
    own.append(Item(name, words, _made(tokens, words)))
    if chosen_by - words:
        own.append(Item(name, chosen_by - words, "chosen"))


def _made(tokens: Sequence[str], words: frozenset[str]) -> Made:
    """One column, in nothing but functions that keep its value, is the same; what counts rows is counted."""
    kept = _KEEPS | words | _types(tokens) | _qualifiers(tokens) | {"(", ")", ".", ",", "::", "as"}
    if len(words) == 1 and set(map(_name, tokens)) <= kept:
        return "same"
    return "counted" if _COUNTS & set(tokens) else "made"


def _is_word(token: str) -> bool:
    return token[0] == _QUOTE or _WORD.fullmatch(token) is not None


def _name(token: str) -> str:
    """A word without its quotation marks."""
    return token.removeprefix(_QUOTE)


def _types(tokens: Sequence[str]) -> set[str]:
    """Words that name a type: what comes after `as` in a cast, or after `::`."""
    return {second for first, second in pairwise(tokens) if first in ("as", "::") and _WORD.fullmatch(second)}


def _qualifiers(tokens: Sequence[str]) -> set[str]:
    return {_name(first) for first, second in pairwise(tokens) if second == "."}


def _words(tokens: Sequence[str]) -> Iterator[str]:
    """The words of an expression that may be columns: no functions, types, qualifiers and keywords."""
    types = _types(tokens)
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        if not _is_word(token) or token in types or token == "jinja" or following in ("(", "."):
            continue
        if token in _KEYWORDS and (token not in _PARTS or following == "from"):
            continue
        yield _name(token)
