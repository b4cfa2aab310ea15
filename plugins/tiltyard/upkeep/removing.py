"""Taking a model or a source away: its texts, tables, deliveries, online features, and what the service keeps of it.

What the ledger and `ops.*` say of a model stays, since decisions have to be answered for when it is gone. First its
texts go and are out of force, so that no night touches the rest; a note in the home says what is going until all of it
has, so that whoever is killed in the middle goes on when asked again.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from tiltyard import release
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.files import whole
from tiltyard.lake import identifier, qualified
from tiltyard.online.connection import connect
from tiltyard.online.store import EARLIEST, TableNote, table_note
from tiltyard.prepare import contracts, releasing, transform
from tiltyard.rails import Rails
from tiltyard.records import Record
from tiltyard.release import PARTS, Texts
from tiltyard.settings import Settings
from tiltyard.tables import BUILT, COLUMN_PROFILE, FEATURE_LATENCY, INGEST_RUN, LANDED_FILE, Table
from tiltyard.upkeep import belongings, holds
from tiltyard.upkeep.belongings import Belongings, Kind
from tiltyard.words import listed, meant

REMOVED = "taken_away"
"""Kind of the ledger's event of a model or source that was removed."""
OF_TABLES = (BUILT, COLUMN_PROFILE, FEATURE_LATENCY)
"""Tables of the lake that keep what is known of others by their names: of one that comes back it would be wrong."""
OF_DELIVERIES = (LANDED_FILE, INGEST_RUN)
"""Tables of the lake that say what has landed: of a source that comes back, nothing has."""
State = Literal["committed", "changed", "not in git"]


@dataclass(frozen=True, kw_only=True)
class RemovedText(Record):
    """A file of the checkout that goes, or of which entries go."""

    path: str
    """Where it lies."""
    git: State
    """Whether git has it as it is, has it otherwise, or has it not, so that nobody can get it back."""


@dataclass(frozen=True, kw_only=True)
class Removal(Record):
    """What goes, or has gone, with a model or a source."""

    kind: Kind
    """What it is."""
    name: str
    """Its name."""
    files: tuple[RemovedText, ...] = ()
    """Files of the checkout that go."""
    edited: tuple[RemovedText, ...] = ()
    """Files of the checkout of which its entries go."""
    tables: tuple[str, ...] = ()
    """Tables of the lake that go."""
    rows: dict[str, int] = field(default_factory=dict)
    """Table of the lake that stays → its rows that go."""
    online: tuple[str, ...] = ()
    """Tables of the store of online features that are emptied."""
    folders: dict[str, int] = field(default_factory=dict)
    """What goes from the home: a folder or a file → number of files."""
    kept: tuple[str, ...] = ()
    """What stays, and why, a sentence each."""
    blocked: tuple[str, ...] = ()
    """Why it may not go, and what to do, a sentence each."""
    is_done: bool = False
    """Whether it has gone."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of it."""
        return not (self.files or self.edited or self.tables or self.rows or self.online or self.folders)


@dataclass(frozen=True)
class _Names:
    """What goes, by name. It is kept in the home while the removal is under way."""

    kind: Kind
    name: str
    tables: tuple[str, ...] = ()
    """Tables that dbt makes."""
    raw: tuple[str, ...] = ()
    """Raw tables, like `raw.login`."""

    @property
    def spelled(self) -> tuple[str, ...]:
        """How tables of the lake and of the ledger may call them."""
        return (*self.tables, *self.raw, *map(_qualified, self.tables))


def kind(text: str | None) -> Kind | None:
    """The kind that an option names. Raises BadInput for what is none."""
    match text:
        case None | "model" | "source":
            return text
    raise BadInput(f"--kind is model or source, not '{text}'.")


def plan(rails: Rails, name: str, kind: Kind | None = None) -> Removal:
    """What goes with a model or source, and what keeps it from going. Nothing is changed.

    `rails` as they were opened for the checkout. Raises BadInput for a name that is none, or is one of either kind.
    """
    names, parts = _look(rails, name, kind)
    return _found(rails, names, parts, _blocked(rails, names, parts))


def remove(rails: Rails, name: str, kind: Kind | None = None, *, by: str, now: datetime) -> Removal:
    """Take away what `plan` finds; again where a removal did not come to its end. Raises CheckFailed, with all of it
    there, where something keeps it from going."""
    rails.ledger.require_right("INSERT")
    with rails.lake.exclusive("remove"):
        names, parts = _look(rails, name, kind)
        removal = _found(rails, names, parts, _blocked(rails, names, parts))
        if removal.blocked:
            raise CheckFailed(f"{name} is not removed: {' '.join(removal.blocked)}")
        note = _note(rails.settings, names.kind, name)
        if removal.is_empty and not note.exists():
            return removal
        _write(note, names)
        _remove_texts(rails.settings, removal, parts)
        _out_of_force(rails, names, parts, by, now)
        _drop(rails, names, removal)
        _empty_store(rails.settings, removal.online)
        for path in map(Path, removal.folders):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        detail = {"kind": names.kind, "name": name, "by": by, "files": len(removal.files), "tables": [*removal.tables]}
        rails.ledger.add_event(REMOVED, name if names.kind == "model" else "", None, detail)
        note.unlink()
    return replace(removal, is_done=True)


# -- what it is ---------------------------------------------------------------------------------------------


def _look(rails: Rails, name: str, kind: Kind | None) -> tuple[_Names, Belongings]:
    """What goes by name, and of the texts."""
    settings = rails.settings
    texts = release.working(settings)
    before = release.stored(release.current(settings))
    is_of = {"model": _is_model(rails, name, texts, before), "source": _is_source(rails, name, texts, before)}
    kinds: list[Kind] = [each for each in ("model", "source") if is_of[each] and kind in (None, each)]  # type: ignore[misc]
    if len(kinds) > 1:
        raise BadInput(
            f"There is a model '{name}' and a source '{name}'; say which with --kind model or --kind source."
        )
    if not kinds:
        there = sorted({*release.folders(settings.models), *contracts.sources(settings)})
        raise BadInput(
            f"There is no {kind or 'model or source'} '{name}'{meant(name, there)}; there are: {', '.join(there)}."
        )
    noted = _read(_note(settings, kinds[0], name))
    if kinds[0] == "model":
        told = {f"models/{name}/spec.yaml": " ".join(noted.tables).encode()} if noted else {}
        parts = belongings.of_model(name, texts, before, told, _last_released(settings, name, texts, before))
        return _Names("model", name, tuple(sorted(parts.tables))), parts
    raw = {*(noted.raw if noted else ()), *_raw_tables(rails, name, texts, before)}
    parts = belongings.of_source(name, texts, noted.tables if noted else _left_behind(rails, name))
    return _Names("source", name, tuple(sorted(parts.tables)), tuple(sorted(raw))), parts


def _is_model(rails: Rails, name: str, *texts: Texts) -> bool:
    """Whether there is, or was, a model of that name."""
    if any(path.startswith(f"models/{name}/") for some in texts for path in some):
        return True
    settings = rails.settings
    return name in release.folders(settings.models) | rails.ledger.models() or _note(settings, "model", name).exists()


def _is_source(rails: Rails, name: str, *texts: Texts) -> bool:
    """Whether there is, or was, a source of that name."""
    settings = rails.settings
    if any(path.startswith(f"dbt/models/staging/{name}/") for some in texts for path in some):
        return True
    if not name or "/" in name or name.startswith("."):
        return False
    if any((folder / name).is_dir() for folder in (settings.landing, settings.quarantine)):
        return True
    if _note(settings, "source", name).exists() or bool(_landed(rails, name)):
        return True
    return any(event.detail.get("name") == name for event in rails.ledger.events("", REMOVED))


def _last_released(settings: Settings, name: str, *others: Texts) -> Texts:
    """The spec of a model whose texts are gone, as a release had it last."""
    path = f"models/{name}/spec.yaml"
    if any(path in texts for texts in others):
        return {}
    had = [folder / path for folder in (settings.home / "releases").glob("[0-9a-f]*") if (folder / path).is_file()]
    return {path: max(had, key=lambda each: each.stat().st_mtime_ns).read_bytes()} if had else {}


def _raw_tables(rails: Rails, name: str, *texts: Texts) -> set[str]:
    """The raw tables of a source, by its contract and by what has landed; none that another source has as well."""
    others = {
        table for some in texts for source, tables in _contracts(some).items() if source != name for table in tables
    }
    own = {table for some in texts for table in _contracts(some).get(name, ())} | _landed(rails, name)
    return {f"raw.{table}" for table in own - others}


def _contracts(texts: Texts) -> dict[str, set[str]]:
    """Source → its tables, of the contracts that can be read."""
    found: dict[str, set[str]] = {}
    for path, content in texts.items():
        if path.startswith("dbt/models/staging/") and path.endswith("__sources.yml"):
            with suppress(yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError):
                for source in yaml.safe_load(content.decode("utf-8"))["sources"]:
                    found.setdefault(source["name"], set()).update(table["name"] for table in source["tables"])
    return found


def _landed(rails: Rails, source: str) -> set[str]:
    """The tables of which files of a source have landed."""
    if not rails.lake.has(LANDED_FILE):
        return set()
    query = f"select distinct table_name from {identifier(LANDED_FILE)} where source = ?"
    return {row[0] for row in rails.lake.connection.execute(query, [source]).fetchall()}


def _left_behind(rails: Rails, source: str) -> set[str]:
    """Staging tables in the lake that are called after a source, whose texts may be gone."""
    return {name for schema, name in _lake_tables(rails) if schema == "staging" and name.startswith(f"stg_{source}__")}


def _qualified(table: str) -> str:
    """A table with its schema, where its prefix names one; a table of somebody's own layer has none."""
    try:
        return qualified(table)
    except KeyError:
        return table


def _lake_tables(rails: Rails) -> set[tuple[str, str]]:
    """(schema, name) of every table of the lake."""
    query = "select table_schema, table_name from information_schema.tables where table_catalog = 'lake'"
    return {(row[0], row[1]) for row in rails.lake.connection.execute(query).fetchall()}


# -- what is there of it ------------------------------------------------------------------------------------


def _found(rails: Rails, names: _Names, parts: Belongings, blocked: tuple[str, ...]) -> Removal:
    """What is there now of what goes."""
    settings, own = rails.settings, {name for table in names.tables for name in (table, f"{table}__answers")}
    tables = sorted(
        f"{schema}.{name}"
        for schema, name in _lake_tables(rails)
        if (f"raw.{name}" in names.raw if schema == "raw" else schema != "ops" and name in own)
    )
    texts = sorted({*map(str, _paths(settings, names, parts.files))})
    edited = [str(_place(settings, path)) for path in sorted(parts.edited)]
    git = _git(settings)
    return Removal(
        kind=names.kind,
        name=names.name,
        files=tuple(RemovedText(path=path, git=git.get(path, "not in git")) for path in texts),
        edited=tuple(RemovedText(path=path, git=git.get(path, "not in git")) for path in edited),
        tables=tuple(tables),
        rows={table.name: count for table in (*OF_DELIVERIES, *OF_TABLES) if (count := _count(rails, table, names))},
        online=_online(settings, names.tables) if names.kind == "model" else (),
        folders={str(path): _files(path) for path in _home(settings, names) if path.exists()},
        kept=_kept(rails, names, parts),
        blocked=blocked,
    )


def _blocked(rails: Rails, names: _Names, parts: Belongings) -> tuple[str, ...]:
    """Why it may not go, a sentence each."""
    why = [*parts.readers]
    why += [
        f"The legal hold {hold.id} of {hold.by} stands ({hold.reason}), and nothing goes while it does; tiltyard holds "
        f"release {hold.id} ends it."
        for hold in holds.open_ones(rails)
    ]
    if names.kind == "model" and rails.ledger.played([names.name]):
        why.append("A hindcast plays it at this moment; wait until that has ended.")
    if not why and (parts.files or parts.edited) and (reason := _refusal(rails, parts)):
        why.append(f"Without it the rest of the checkout does not hold together: {reason}")
    return tuple(why)


def _refusal(rails: Rails, parts: Belongings) -> str | None:
    """Why the checkout without these texts would not be accepted; None where it would be."""
    settings = rails.settings
    before, texts = release.stored(release.current(settings)), release.working(settings)
    rest = {path: content for path, content in texts.items() if path not in parts.files}
    rest |= {path: text.encode() for path, text in parts.edited.items()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        release.write(rest, folder)
        trial = settings.model_copy(update={part: folder / part for part in PARTS})
        accepted, refused = releasing.compose(trial, before, rest)
    if parts.files.isdisjoint(accepted):
        return None
    reasons = [str(text).replace(f"{folder}/", "") for text in refused]
    return listed(reasons, " ")


def _kept(rails: Rails, names: _Names, parts: Belongings) -> tuple[str, ...]:
    """What stays, and why, a sentence each."""
    kept = [f"{table} stays: {who} reads it." for table, who in sorted(parts.kept.items())]
    if names.kind == "model":
        kept.append(
            f"What the ledger and ops.* say of {names.name} stays: versions, decisions, approvals, predictions, and "
            "the frames and reports that they name. A model that comes back under its name goes on from there; one "
            "that asks something else wants a name of its own."
        )
        asked = [task for task in rails.ledger.default_tasks(names.name) if not task.explanation and not task.recovery]
        if asked or any(path.endswith("/spec.yaml") for path in parts.files):
            kept.append("A question about it that is open in Airflow ends with the next run of any source's features.")
    else:
        kept.append(f"What the ledger says of the nights of {names.name} stays.")
        kept.append(
            f"Whoever delivers into {rails.settings.landing / names.name} is to be told: a folder there makes it an "
            "active source again, whose nights fail, alone."
        )
        if names.name in os.environ.get("TILTYARD_SOURCES", "").split(","):
            kept.append(f"TILTYARD_SOURCES names {names.name}; take it out there.")
    pending = release.pending(rails.settings)
    pending = replace(pending, models={name: how for name, how in pending.models.items() if name != names.name})
    if (parts.files or parts.edited) and pending.named:
        kept.append(f"What waits in the checkout goes into force with it: {pending.named}.")
    return tuple(kept)


def _paths(settings: Settings, names: _Names, files: Collection[str]) -> Iterator[Path]:
    """The files that go, and whatever else lies in a folder that is its own."""
    yield from (_place(settings, path) for path in files)
    folder = _own_folder(settings, names)
    if folder.is_symlink():
        yield folder
    else:
        yield from (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _own_folder(settings: Settings, names: _Names) -> Path:
    """The folder of the checkout that is its own."""
    of_source = settings.dbt / "models" / "staging" / names.name
    return settings.models / names.name if names.kind == "model" else of_source


def _place(settings: Settings, path: str) -> Path:
    part, _, below = path.partition("/")
    root: Path = getattr(settings, part)
    return root / below


def _home(settings: Settings, names: _Names) -> tuple[Path, ...]:
    """What may lie of it in the home."""
    if names.kind == "source":
        return settings.landing / names.name, settings.quarantine / names.name
    return settings.home / "serving" / "models" / f"{names.name}.json", settings.home / "cache" / names.name


def _files(path: Path) -> int:
    return sum(each.is_file() for each in path.rglob("*")) if path.is_dir() else 1


def _git(settings: Settings) -> dict[str, State]:
    """File of the checkout → how git has it, of those that it has."""
    states: dict[str, State] = {}
    for part in PARTS:
        folder: Path = getattr(settings, part)
        if not folder.is_dir():
            continue
        tracked, changed = (
            {str(folder / name) for name in _git_names(folder, *words)}
            for words in (
                ("ls-tree", "-r", "HEAD", "--name-only", "-z"),
                ("diff", "HEAD", "--name-only", "--relative", "-z"),
            )
        )
        states |= {path: "changed" if path in changed else "committed" for path in tracked}
    return states


def _git_names(folder: Path, *words: str) -> list[str]:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [name for name in done.stdout.split("\0") if name] if done.returncode == 0 else []


def _where(table: Table, names: _Names) -> tuple[str, list[str]]:
    """(column, values) of the rows of a table of the lake that are about it."""
    if table in OF_DELIVERIES:
        return "source", [names.name] if names.kind == "source" else []
    beside = [f"source:{names.name}"] if names.kind == "source" and table is BUILT else []
    return "table_name", [*names.spelled, *beside]


def _count(rails: Rails, table: Table, names: _Names) -> int:
    column, values = _where(table, names)
    if not values or not rails.lake.has(table):
        return 0
    query = f'select count(*) from {identifier(table)} where "{column}" in (select unnest(?))'
    row = rails.lake.connection.execute(query, [values]).fetchone()
    return int(row[0]) if row else 0


def _online(settings: Settings, tables: Collection[str]) -> tuple[str, ...]:
    """Those of the tables that the store of online features has."""
    if not tables or (settings.online_url is None and not (settings.home / "online").is_dir()):
        return ()
    store = connect(settings)
    try:
        notes = {table: store.read_note(table_note(table), TableNote) for table in sorted(tables)}
        return tuple(table for table, note in notes.items() if note is not None and note.columns)
    finally:
        store.close()


# -- taking it away -----------------------------------------------------------------------------------------


def _note(settings: Settings, kind: Kind, name: str) -> Path:
    return settings.home / "removals" / f"{kind}_{name}.json"


def _write(note: Path, names: _Names) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    with whole(note, lasting=True) as part:
        part.write_text(json.dumps(vars(names)), encoding="utf-8")


def _read(note: Path) -> _Names | None:
    try:
        body: Mapping[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return _Names(body["kind"], body["name"], tuple(body["tables"]), tuple(body["raw"]))


def _remove_texts(settings: Settings, removal: Removal, parts: Belongings) -> None:
    for path, text in parts.edited.items():
        with whole(_place(settings, path)) as part:
            part.write_text(text, encoding="utf-8")
    folders = {Path(file.path).parent for file in removal.files}
    for file in removal.files:
        Path(file.path).unlink(missing_ok=True)
    own = _own_folder(settings, _Names(removal.kind, removal.name))
    if own.is_dir() and not own.is_symlink():
        shutil.rmtree(own)
    for folder in folders:
        with suppress(OSError):  # others have files there
            folder.rmdir() if folder not in (settings.models, settings.expectations) else None


def _out_of_force(rails: Rails, names: _Names, parts: Belongings, by: str, now: datetime) -> None:
    """Put the checkout without it in force. Raises CheckFailed where its texts stay in force."""
    accepted = releasing.accept(rails, now, by=by)
    left = parts.files & release.stored(release.current(rails.settings)).keys()
    left |= {
        path
        for path in release.stored(release.current(rails.settings))
        if path.startswith(
            (f"models/{names.name}/",) if names.kind == "model" else (f"dbt/models/staging/{names.name}/",)
        )
    }
    if left:
        raise CheckFailed(
            f"The texts of {names.name} are gone from the checkout and stay in force, so that nothing else was taken "
            f"away: {listed([str(text) for text in accepted.refused], ' ')} Mend that, and remove {names.name} again."
        )


def _drop(rails: Rails, names: _Names, removal: Removal) -> None:
    """Drop its tables, forget what is kept of them by name, and let dbt's project be read anew."""

    query = "select table_schema || '.' || table_name from information_schema.tables where table_type = 'VIEW'"
    views = {row[0] for row in rails.lake.connection.execute(f"{query} and table_catalog = 'lake'").fetchall()}

    def work(connection: Any) -> None:
        for table in removal.tables:
            connection.execute(f"drop {'view' if table in views else 'table'} if exists {identifier(table)}")
        for keeping in (*OF_DELIVERIES, *OF_TABLES):
            column, values = _where(keeping, names)
            if keeping.name in removal.rows:
                connection.execute(
                    f'delete from {identifier(keeping)} where "{column}" in (select unnest(?))', [values]
                )

    with transform.alone(rails):
        rails.lake.commit(work, message=f"remove {names.kind} {names.name}")
        (rails.settings.home / "dbt" / "manifest.json").unlink(missing_ok=True)
        rails.ledger.forget_tables(names.spelled)


def _empty_store(settings: Settings, tables: Collection[str]) -> None:
    """Empty tables of the store of online features. Raises Unavailable where it does not answer."""
    if not tables:
        return
    store = connect(settings)
    try:
        for table in tables:
            store.prune(table, math.inf)
            store.write_note(table_note(table), TableNote(as_of=EARLIEST, columns={}))  # filled from nothing, if ever
    finally:
        store.close()
