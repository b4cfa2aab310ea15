"""What belongs to a model or a source, and to nobody else. Pure: it reads texts and touches nothing.

A table is somebody else's as soon as any text that stays names it: another model's spec, another table's SQL, or a
macro that this calls, an exposure of something else. Comments name nothing. So it errs towards leaving a table where it
is.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Literal

import yaml

from tiltyard.release import Texts

Kind = Literal["model", "source"]

_COMMENT = re.compile(r"\{#.*?#\}|/\*.*?\*/|--[^\n]*", re.DOTALL)
_TABLE = re.compile(r"\b(?:spn|ftr|lbl|pop)_[a-z0-9_]+\b")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MACRO = re.compile(r"\{%-?\s*macro\s+([A-Za-z0-9_]+)(.*?)\{%-?\s*endmacro", re.DOTALL)
_LISTS = ("exposures", "models")
"""The lists of a `.yml` whose entries may be of several models or tables."""


@dataclass(frozen=True)
class Belongings:
    """What goes with a model or a source."""

    tables: frozenset[str]
    """Tables that dbt makes, by name."""
    files: frozenset[str]
    """Texts of the checkout, like `models/churn/spec.yaml`, that go whole."""
    edited: Mapping[str, str]
    """Text of which entries go, and the rest stays → the rest."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Table that it names and that stays → who else reads it."""
    readers: tuple[str, ...] = ()
    """Who stands on it and stays, so that it may not go, and what to do, a sentence each."""


def of_model(name: str, texts: Texts, *own: Texts) -> Belongings:
    """What goes with a model. `texts`: of the checkout; `own`: other texts that may hold its spec, like those that are
    in force."""
    spec = f"models/{name}/spec.yaml"
    going = {table for some in (texts, *own) if spec in some for table in _TABLE.findall(_plain(spec, some[spec]))}
    kept: dict[str, str] = {}
    while True:
        words = _words(texts, name, going)
        staying = {path: of_path for path, of_path in words.items() if not _goes(path, name, going, words)}
        readers = {table: who for table in sorted(going) if (who := _reader(table, staying))}
        if not readers:
            return _belongings(name, texts, going, kept=kept)
        kept |= readers
        going -= readers.keys()


def of_source(name: str, texts: Texts, also: Collection[str] = ()) -> Belongings:
    """What goes with a source: its contract, its staging, and what is made of these alone or with others. `also`:
    tables of it whose texts are gone."""
    words, staging = _words(texts, "", ()), _staging(name)
    going = {*also} | {PurePosixPath(path).stem for path in texts if path.startswith(staging) and path.endswith(".sql")}
    lands = re.compile(rf"\bsource\(\s*['\"]{re.escape(name)}['\"]")
    tables = {path: PurePosixPath(path).stem for path in words if _is_sql_of_table(path)}
    made: set[str] | None = None
    while made != going:
        made = set(going)
        going |= {
            stem for path, stem in tables.items() if words[path] & going or lands.search(_plain(path, texts[path]))
        }
    readers = [
        sentence for path in sorted(words) if (sentence := _stands_on(name, path, texts[path], words[path], going))
    ]
    return _belongings(name, texts, going, readers=tuple(readers))


def _belongings(
    name: str,
    texts: Texts,
    going: Collection[str],
    *,
    kept: Mapping[str, str] | None = None,
    readers: tuple[str, ...] = (),
) -> Belongings:
    words = _words(texts, name, going)
    files = {path for path in texts if _goes(path, name, going, words)}
    rest = {
        path: text
        for path in words
        if path.endswith(".yml") and path not in files
        if (text := _rest(texts[path].decode("utf-8", "replace"), name, going))
        != texts[path].decode("utf-8", "replace")
    }
    files |= {path for path, text in rest.items() if not text}
    edited = {path: text for path, text in rest.items() if text}
    return Belongings(frozenset(going), frozenset(files), edited, kept or {}, readers)


def _stands_on(name: str, path: str, content: bytes, words: Collection[str], going: Collection[str]) -> str | None:
    """Why the text at a path keeps a source from going, as a sentence; None where it does not."""
    through = sorted(set(words) & set(going))
    if re.fullmatch(r"models/[^/]+/spec\.yaml", path):
        model = path.split("/")[1]
        if through:
            return f"the model {model} reads it, through {through[0]}; remove {model} first."
        if re.search(rf"(?m)^source:\s*['\"]?{re.escape(name)}['\"]?\s*$", _plain(path, content)):
            return f"the model {model} names it as its source; remove {model} first."
    return None


def _reader(table: str, staying: Mapping[str, Collection[str]]) -> str | None:
    """Who names a table, of the texts that stay; None where nobody does."""
    path = next((path for path in sorted(staying) if table in staying[path]), None)
    if path is None:
        return None
    if path.startswith("models/"):
        return f"the model {path.split('/')[1]}"
    return PurePosixPath(path).stem if _is_sql_of_table(path) else path


def _goes(path: str, name: str, going: Collection[str], words: Mapping[str, Collection[str]]) -> bool:
    """Whether a text is about a model or source and its tables, and about nothing else: a folder of its own, the SQL,
    the `.yml` and the suite of a table, a test that names one."""
    if path.startswith((f"models/{name}/", _staging(name))):
        return True
    if path.startswith("dbt/tests/"):
        return not {*going}.isdisjoint(words.get(path, ()))
    return path.startswith(("dbt/models/", "expectations/")) and PurePosixPath(path).stem in going


def _staging(source: str) -> str:
    return f"dbt/models/staging/{source}/"


def _is_sql_of_table(path: str) -> bool:
    return path.startswith("dbt/models/") and path.endswith(".sql")


def _words(texts: Texts, name: str, going: Collection[str]) -> dict[str, frozenset[str]]:
    """Path → every word of its text and of the macros that it calls, of specs, SQL and `.yml`, but for the entries that
    are about what goes."""
    macros = _macros(texts)
    words = {
        path: frozenset(_WORD.findall(_plain(path, content, partial(_rest, name=name, going=going))))
        for path, content in texts.items()
        if path.endswith((".sql", ".yml", "/spec.yaml")) and not path.startswith("dbt/macros/")
    }
    return {
        path: own.union(*(macros[called] for called in own & macros.keys())) if path.endswith(".sql") else own
        for path, own in words.items()
    }


def _macros(texts: Texts) -> dict[str, frozenset[str]]:
    """Macro → every word of it, and of the macros that it calls."""
    words = {
        name: frozenset(_WORD.findall(body))
        for path, content in texts.items()
        if path.startswith("dbt/macros/") and path.endswith(".sql")
        for name, body in _MACRO.findall(_plain(path, content))
    }
    before: dict[str, frozenset[str]] = {}
    while words != before:
        before = words
        words = {name: own.union(*(words[called] for called in own & words.keys())) for name, own in words.items()}
    return words


def _plain(path: str, content: bytes, rest: "partial[str] | None" = None) -> str:
    """The text without comments."""
    text = content.decode("utf-8", "replace")
    if path.endswith(".sql"):
        return _COMMENT.sub(" ", text)
    return re.sub(r"(?m)(^|\s)#.*$", "", rest(text) if rest and path.endswith(".yml") else text)


def _rest(text: str, name: str, going: Collection[str]) -> str:
    """A `.yml` without the exposure of that name and the tables that go; empty where nothing else is in it."""
    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:  # nobody can say what is about what
        return text
    lists = {
        key.value: (key, entries)
        for key, entries in (node.value if isinstance(node, yaml.MappingNode) else ())
        if isinstance(entries, yaml.SequenceNode) and not entries.flow_style
    }
    spans, others = [], len(lists.keys() - {*_LISTS})
    for kind, gone in (("exposures", {name}), ("models", {*going})):
        if kind not in lists:
            continue
        key, entries = lists[kind]
        starts = [entry.start_mark.line for entry in entries.value] + [
            entries.end_mark.line + bool(entries.end_mark.column)
        ]
        leaving = [place for place, entry in enumerate(entries.value) if _name_of(entry) in gone]
        others += len(leaving) < len(entries.value)
        if leaving and len(leaving) == len(entries.value):
            spans.append((key.start_mark.line, starts[-1]))
        else:
            spans += [(starts[place], starts[place + 1]) for place in leaving]
    if not spans:
        return text
    lines = text.splitlines(keepends=True)
    for first, after in sorted(spans, reverse=True):
        del lines[first:after]
    return "".join(lines).rstrip("\n") + "\n" if others else ""


def _name_of(entry: yaml.Node) -> str | None:
    """The `name` of an entry of a list."""
    pairs = entry.value if isinstance(entry, yaml.MappingNode) else ()
    return next((value.value for key, value in pairs if key.value == "name"), None)
