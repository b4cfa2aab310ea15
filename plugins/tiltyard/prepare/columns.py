"""What a column is, said once: `config.meta.tiltyard` of the column in its dbt `.yml`, of a source or of a model.

- `planned: true`: known ahead by its nature, like a due date. It is never suspected.
- `written_later: true`, or the column that tells when: filled in after the row was first known, like a status.
- `identifies: true`: it identifies a person; `identifies: customer` says whom, by the name that specs call it.
- `unit`: what a number is in, like EUR.

What is said of a column holds for what is made of it (`column_lineage`), until somebody says something else there.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import StrictBool, ValidationError, field_validator, model_validator

from tiltyard.errors import BadInput
from tiltyard.prepare import column_lineage, dbt_files, select_list
from tiltyard.prepare.column_lineage import ColumnLineage, Made, Step, worse
from tiltyard.prepare.contracts import AUDIT_COLUMNS, TimeColumn
from tiltyard.settings import Settings
from tiltyard.spec import Strict

TIMES = frozenset({*AUDIT_COLUMNS, "built_at", "prediction_time"})
"""Columns that tell when a row was known, and where it came from. Nothing is said of these."""
OF_A_TABLE = ("horizon", "delay")
"""What `config.meta.tiltyard` of a model may say (of a label table; `project.check_spec`)."""
TEXTS = frozenset({"varchar", "text", "string"})
INSTANTS = frozenset({"timestamptz", "timestamp with time zone", "timestamp", "date"})
"""Types of columns that tell a time."""
_MACRO = re.compile(r"\{%-?\s*macro\s+(\w+).*?endmacro", re.DOTALL)


class ColumnMeta(Strict):
    """`config.meta.tiltyard` of a column."""

    planned: StrictBool = False
    """Known ahead by its nature."""
    written_later: StrictBool | TimeColumn = False
    """Filled in after the row was first known; the column that tells when, where there is one."""
    identifies: StrictBool | str = False
    """It identifies a person; whom, by the name of an entity, where somebody says so."""
    unit: str | None = None
    """What a number is in; None: nobody says."""
    header: str | None = None
    """How a delivery spells the column of a source; None: by its own name."""

    @field_validator("written_later", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"column": value} if isinstance(value, str) else value

    @field_validator("identifies")
    @classmethod
    def _a_name(cls, value: bool | str) -> bool | str:
        if isinstance(value, str) and not re.fullmatch("[a-z][a-z0-9_]*", value):
            raise ValueError("it is true, or the name of an entity, like customer")
        return value

    @field_validator("unit")
    @classmethod
    def _a_unit(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is empty; write what the numbers are in, like EUR, or take it away")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "ColumnMeta":
        if self.planned and self.written_later:
            raise ValueError(
                "it is planned, known ahead, or written_later, after its row was known, and not both; take one away"
            )
        return self


@dataclass(frozen=True)
class ColumnSaid:
    """What is said of one column."""

    table: str
    """Its table: `raw.login`, or what dbt makes by its own name."""
    column: str
    planned: bool = False
    """Known ahead by its nature."""
    written_later: bool = False
    """Filled in after the row was first known."""
    when: TimeColumn | None = None
    """The column of the same table that tells when it was written; None where none does."""
    identifies: bool = False
    """It identifies a person."""
    unit: str | None = None
    """What a number is in."""
    entity: str | None = None
    """Whom it identifies, as specs call it; None where nobody says."""

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True)
class Origin:
    """What a column is made of in the end: a column of which something is said about time, or one of a raw table."""

    table: str
    column: str
    made: Made
    """How, all steps together."""
    said: ColumnSaid | None = None
    """What is said of it; None where nothing is."""


@dataclass(frozen=True)
class Columns:
    """Everything that is said of columns, and which is made of which."""

    said: Mapping[str, Mapping[str, ColumnSaid]]
    """Table → column, in lower case, → what is said of it; only those of which something is said."""
    lineage: ColumnLineage
    """Which column is made of which."""
    own_times: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Raw table → its columns that tell when a row happened or was written, by its contract."""
    disagreements: Mapping[str, str] = field(default_factory=dict)
    """Table that dbt makes → where its SQL and its `.yml` have other columns, as a sentence; only those that differ."""

    def of(self, table: str, column: str) -> ColumnSaid | None:
        """What is said of a column itself."""
        return self.said.get(table, {}).get(column.lower())

    def origins(self, table: str, column: str) -> tuple[Origin, ...]:
        """What a column is made of in the end, up to the first place where something is said about time; the times of
        rows apart."""
        found: dict[tuple[str, str], Origin] = {}
        waiting = [Step(table, column.lower(), "same")]
        visited = set()
        while waiting:
            step = waiting.pop()
            if step in visited or step.column in TIMES or step.column in self.own_times.get(step.table, ()):
                continue
            visited.add(step)
            said = self.of(step.table, step.column)
            if (said and (said.planned or said.written_later)) or step.table in self.lineage.raw:
                last = found.get((step.table, step.column))
                if last is None or worse(last.made, step.made) != step.made:
                    name = said.column if said else step.column
                    found[step.table, step.column] = Origin(step.table, name, step.made, said)
                continue
            for above in self.lineage.steps(step.table, step.column):
                waiting.append(Step(above.table, above.column, worse(step.made, above.made)))
        return tuple(found[key] for key in sorted(found))

    def is_planned(self, table: str, column: str) -> bool:
        """Whether a column is known ahead: it is said so, or it is made of nothing else, row by row."""
        made_of = [origin for origin in self.origins(table, column) if origin.made != "chosen"]
        return bool(made_of) and all(
            origin.made != "counted" and origin.said is not None and origin.said.planned for origin in made_of
        )

    def planned(self, table: str, names: Iterable[str]) -> tuple[str, ...]:
        """Those of a table's columns that are known ahead."""
        return tuple(name for name in names if self.is_planned(table, name))

    def written_later(self, table: str, column: str) -> tuple[Origin, ...]:
        """The columns that are written later, of which this one is made."""
        return tuple(origin for origin in self.origins(table, column) if origin.said and origin.said.written_later)

    def keys(self, table: str, column: str, of: str) -> tuple[str, ...]:
        """The columns of the table `of` that a column carries unchanged."""
        return tuple(step.column for step in self._unchanged(table, column) if step.table == of)

    def carried(self, table: str, column: str) -> frozenset[tuple[str, str]]:
        """Every (table, column) whose value a column carries unchanged, itself among them."""
        return frozenset((step.table, step.column) for step in self._unchanged(table, column))

    def unit(self, table: str, column: str) -> str | None:
        """What a column is in: as it is said of it, or of the one whose value it carries; None where nobody says, or
        two differ."""
        own = self.of(table, column)
        if own and own.unit:
            return own.unit
        units = {said.unit for step in self._unchanged(table, column) if (said := self.of(step.table, step.column))}
        units.discard(None)
        return units.pop() if len(units) == 1 else None

    def identifies(self, table: str, column: str) -> bool:
        """Whether a column identifies a person: it is said so of it, or of one whose value it carries."""
        steps = (Step(table, column.lower(), "same"), *self._unchanged(table, column))
        return any(said.identifies for step in steps if (said := self.of(step.table, step.column)))

    def stands_on(self, tables: Iterable[str], raw: str, column: str | None = None) -> bool:
        """Whether any column of these tables is made of a raw table, or of one of its columns, in whatever way: also
        where it only says which rows there are, or when they were known. True for a raw table that is not known."""
        if raw not in self.lineage.raw or column in self.own_times.get(raw, ()):  # of such a one its times are made
            return True
        waiting = [Step(table, name.lower(), "same") for table in tables for name in self.lineage.columns(table)]
        visited = set()
        while waiting:
            step = waiting.pop()
            if (place := (step.table, step.column)) in visited:
                continue
            visited.add(place)
            if step.table == raw and column in (None, step.column):
                return True
            waiting += self.lineage.steps(step.table, step.column)
        return False

    def _unchanged(self, table: str, column: str) -> Iterator[Step]:
        """The columns whose value a column carries, and itself."""
        waiting, visited = [Step(table, column.lower(), "same")], set()
        while waiting:
            step = waiting.pop()
            if step in visited:
                continue
            visited.add(step)
            yield step
            waiting += [above for above in self.lineage.steps(step.table, step.column) if above.made == "same"]


# -- reading ----------------------------------------------------------------------------------


def read(settings: Settings) -> Columns:
    """What the dbt project says of its columns. Raises BadInput, with file and line, for what does not hold."""
    paths = sorted(path for part in ("models", "macros") for path in (settings.dbt / part).rglob("*.yml"))
    paths += sorted(path for part in ("models", "macros") for path in (settings.dbt / part).rglob("*.sql"))
    return _read(settings.dbt, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths))


@lru_cache(maxsize=8)
def _read(dbt: Path, files: tuple[tuple[Path, int, int], ...]) -> Columns:
    """The same; read again when a file is another one."""
    models = dbt / "models"
    entries = [entry for path, *_ in files if path.suffix == ".yml" for entry in _entries(path)]
    kinds: dict[str, dict[str, str | None]] = {}
    for entry in entries:
        kinds.setdefault(entry.table, {})[entry.column] = entry.kind
    described = {table: frozenset(columns) for table, columns in kinds.items()}
    raw = {table: columns | AUDIT_COLUMNS.keys() for table, columns in described.items() if table.startswith("raw.")}
    texts = {path: path.read_text(encoding="utf-8") for path, *_ in files if path.suffix == ".sql"}
    macros = {match[1]: match[0] for text in texts.values() for match in _MACRO.finditer(text)}
    queries = {path.stem: text for path, text in texts.items() if path.is_relative_to(models)}
    names = {table.removeprefix("raw."): table for table in raw} | {name: name for name in queries}
    lineage = ColumnLineage(
        raw=raw,
        queries={name: column_lineage.read(text, names, macros) for name, text in queries.items()},
        described={table: columns for table, columns in described.items() if table not in raw},
    )
    said: dict[str, dict[str, ColumnSaid]] = {}
    own_times: dict[str, frozenset[str]] = {}
    for entry in entries:
        own_times[entry.table] = entry.own_times
        if entry.meta is not None:
            _check(entry, lineage, kinds[entry.table])
            said.setdefault(entry.table, {})[entry.column.lower()] = _said(entry)
    sql = {path.stem: path for path in texts if path.is_relative_to(models)}
    differ = {name: why for name, path in sql.items() if (why := _disagreement(name, path, texts[path], entries))}
    return Columns(said, lineage, own_times, differ)


def _disagreement(table: str, path: Path, text: str, entries: Iterable["_Entry"]) -> str | None:
    """Where the SQL of a table and its `.yml` have other columns; None where they agree, where there is no `.yml`, and
    where the text does not say. Of staging a `.yml` need not describe everything."""
    described = {entry.column: entry.at for entry in entries if entry.table == table}
    given = select_list.given(text) if described else None
    if given is None:
        return None
    names = {column.name for column in given}
    for name, at in described.items():
        if name.lower() not in names:
            return (
                f"{at}: {table} describes a column '{name}', and {path.name} does not give it; add it to the SQL, or "
                "take it out of the .yml."
            )
    known = {name.lower() for name in described}
    for column in () if table.startswith("stg_") else given:
        if column.name not in known:
            yml = next(iter(described.values())).rpartition(":")[0].rpartition("/")[2]
            return (
                f"{path}:{column.line}: {table} gives a column '{column.name}', and {yml} does not describe it; add it "
                "to the .yml, or take it out of the SQL."
            )
    return None


@dataclass(frozen=True)
class _Entry:
    """A column as a `.yml` has it."""

    where: str
    """File and line of its `meta`, or of the column."""
    at: str
    """File and line of the column."""
    table: str
    column: str
    meta: ColumnMeta | None
    own_times: frozenset[str]
    """Of its table."""
    kind: str | None = None
    """Its `data_type`; None where the `.yml` does not give it."""


def _said(entry: _Entry) -> ColumnSaid:
    meta = entry.meta
    assert meta is not None
    return ColumnSaid(
        table=entry.table,
        column=entry.column,
        planned=meta.planned,
        written_later=bool(meta.written_later),
        when=meta.written_later if isinstance(meta.written_later, TimeColumn) else None,
        identifies=bool(meta.identifies),
        unit=meta.unit,
        entity=meta.identifies if isinstance(meta.identifies, str) else None,
    )


def _check(entry: _Entry, lineage: ColumnLineage, columns: Mapping[str, str | None]) -> None:
    """The column is there, and so is the one that tells when it was written, which is a time. Raises BadInput.

    `columns`: those that the `.yml` of the table describes, each with its type.
    """
    if entry.column in TIMES:
        raise BadInput(f"{entry.where}: '{entry.column}' tells when a row was known, and is no column to say more of.")
    if lineage.has(entry.table, entry.column) is False:
        raise BadInput(
            f"{entry.where}: the SQL of {entry.table} makes no column '{entry.column}'; mend its name, or take it away."
        )
    when = entry.meta.written_later if entry.meta else False
    if not isinstance(when, TimeColumn):
        return
    if when.column in TIMES:
        raise BadInput(
            f"{entry.where}: written_later: '{when.column}' is the time of the whole row; name the column that tells "
            f"when {entry.column} was written, or say written_later: true."
        )
    if lineage.has(entry.table, when.column) is False:
        close = difflib.get_close_matches(when.column, sorted(columns), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; name one that tells when it was written, or say true."
        raise BadInput(f"{entry.where}: written_later: {entry.table} has no column '{when.column}'{hint}")
    kind = (columns.get(when.column) or "").lower().split("(")[0]
    if kind in TEXTS or (kind in INSTANTS and when.format is None):
        return
    if kind in INSTANTS:
        raise BadInput(f"{entry.where}: written_later: '{when.column}' is {kind} and takes no format; take it away.")
    if kind:
        raise BadInput(
            f"{entry.where}: written_later: '{when.column}' is {kind}, which tells no time; name the column that tells "
            f"when {entry.column} was written, or say true."
        )


# -- a file, with its lines --------------------------------------------------------------------


def _entries(path: Path) -> Iterator[_Entry]:
    """The columns that a `.yml` describes."""
    node, content = dbt_files.read(path)
    if not isinstance(node, yaml.MappingNode):
        return
    for model, at in _list(content, node, "models"):
        _only(path, model, at)
        yield from _columns(path, str(model.get("name")), model, at)
    for source, source_at in _list(content, node, "sources"):
        for table, at in _list(source, source_at, "tables"):
            if source.get("schema") == "raw":
                yield from _columns(path, f"raw.{table.get('name')}", table, at)


def _columns(path: Path, table: str, entry: Mapping[str, Any], node: yaml.MappingNode) -> Iterator[_Entry]:
    timing = (entry.get("config") or {}).get("meta") or {}
    timing = timing.get("tiltyard") or {}
    own_times = frozenset(
        str(time["column"])
        for name in ("event_time", "available_at")
        if isinstance(time := timing.get(name), dict) and "column" in time
    )
    for column, at in _list(entry, node, "columns"):
        name = str(column.get("name"))
        if isinstance(column.get("meta"), dict) and "tiltyard" in column["meta"]:
            line = _below(at, "meta")[1]
            raise BadInput(f"{path}:{line}: column '{name}': what is said for Tiltyard stands in config.meta.tiltyard.")
        place = f"{path}:{at.start_mark.line + 1}"
        config, _ = _below(at, "config")
        meta, _ = _below(config, "meta")
        tiltyard, line = _below(meta, "tiltyard")
        if tiltyard is None:
            for key in column.get("config", {}).get("meta") or {} if isinstance(column.get("config"), dict) else ():
                if key in ColumnMeta.model_fields:
                    raise BadInput(
                        f"{path}:{_below(meta, key)[1]}: column '{name}': what is said for Tiltyard stands one level "
                        f"deeper, config: {{meta: {{tiltyard: {{{key}: …}}}}}}."
                    )
            yield _Entry(place, place, table, name, None, own_times, column.get("data_type"))
            continue
        where = f"{path}:{line}: column '{name}'"
        meta_of = _meta(path, name, column["config"]["meta"]["tiltyard"], tiltyard)
        yield _Entry(where, place, table, name, meta_of, own_times, column.get("data_type"))


def _meta(path: Path, name: str, content: Any, node: yaml.Node) -> ColumnMeta:
    """What is said of a column. Raises BadInput with the line of the key that is wrong."""
    line = node.start_mark.line + 1
    if not isinstance(content, dict):
        raise BadInput(f"{path}:{line}: column '{name}': config.meta.tiltyard is a mapping, like {{planned: true}}.")
    for key in content:
        if key not in ColumnMeta.model_fields:
            raise BadInput(f"{path}:{_below(node, key)[1]}: column '{name}': {_unknown(key, ColumnMeta.model_fields)}")
    try:
        return ColumnMeta(**content)
    except ValidationError as error:
        detail = next((each for each in error.errors() if each["type"] != "bool_type"), error.errors()[0])
        place = [str(part) for part in detail["loc"]]
        if place:
            line = _below(node, place[0])[1]
        message = detail["msg"].removeprefix("Value error, ")
        if place[:1] == ["written_later"] and not isinstance(content["written_later"], dict):
            message = "true, or the column that tells when it was written"
        shown = f"{place[0]}: " if place else ""
        raise BadInput(f"{path}:{line}: column '{name}': {shown}{message}.") from None


def _only(path: Path, model: Mapping[str, Any], node: yaml.MappingNode) -> None:
    """`config.meta.tiltyard` of a model says nothing that nobody reads. Raises BadInput."""
    meta, _ = _below(_below(node, "config")[0], "meta")
    tiltyard, _ = _below(meta, "tiltyard")
    if isinstance(tiltyard, yaml.MappingNode):
        for key, _value in tiltyard.value:
            if key.value not in OF_A_TABLE:
                where = f"{path}:{key.start_mark.line + 1}: {model.get('name')}"
                raise BadInput(f"{where}: config.meta.tiltyard: {_unknown(key.value, OF_A_TABLE)}")


def _unknown(key: object, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(str(key), names, n=1)
    return f"there is no '{key}'; " + (f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}.")


def _list(content: Mapping[str, Any], node: yaml.MappingNode, key: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """The mappings of a list under a key, each with its place."""
    below, _ = _below(node, key)
    if isinstance(below, yaml.SequenceNode) and isinstance(content.get(key), list):
        for entry, at in zip(content[key], below.value, strict=True):
            if isinstance(entry, dict):
                yield entry, at


def _below(node: yaml.Node | None, key: object) -> tuple[yaml.Node | None, int]:
    """(what stands under a key, the key's line); None where there is none."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return value, name.start_mark.line + 1
    return None, node.start_mark.line + 1 if node is not None else 0
