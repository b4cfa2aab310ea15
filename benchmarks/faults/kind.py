"""What a kind of fault is, and the place that it is put into."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from faults import business
from faults.player import Trap
from tiltyard import ledger_tables
from tiltyard import rails as rails_module
from tiltyard.settings import Settings

T = TypeVar("T")
PAGE = 4096
"""Bytes in which a file system gives room."""


@dataclass
class Place:
    """The home and the checkout that a fault is put into, and what it has to take back."""

    at: Settings
    as_of: datetime
    """The night of the fault."""
    undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def night(self) -> date:
        return self.as_of.date()

    def delivery(self, source: str, table: str) -> Path:
        """The night's own file of a table."""
        return business.delivery(self.at, source, table, self.night)

    def write(self, path: Path, content: str | bytes) -> None:
        """Put something in a file, and the old content back when it is mended."""
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.undo.append(lambda: path.unlink(missing_ok=True) if before is None else _put(path, before))

    def change(self, path: Path, change: Callable[[str], str]) -> None:
        """Change a text. It has to be another one afterwards."""
        text = path.read_text()
        other = change(text)
        if other == text:
            raise SystemExit(f"{path} is as it was: the fault was not put in.")
        self.write(path, other)

    def remove(self, path: Path) -> None:
        """Take a file or a folder away, until it is mended."""
        aside = path.with_name(f".{path.name}.aside")
        path.rename(aside)

        def back() -> None:
            if path.is_dir():
                shutil.rmtree(path)
            aside.replace(path)

        self.undo.append(back)

    def link(self, path: Path, target: str) -> None:
        """Let a path be a link, until it is mended."""
        path.symlink_to(target)
        self.undo.append(path.unlink)

    def sql(self, path: str) -> Path:
        """A file of the dbt project."""
        return self.at.dbt / "models" / path

    def spec(self, model: str) -> Path:
        return self.at.models / model / "spec.yaml"

    def suite(self, table: str) -> Path:
        return self.at.expectations / "features" / f"{table}.yaml"

    def full(self, folder: Path) -> None:
        """Let a folder lie on a disk of its own that has no room left."""
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f".{folder.name}.content")
        shutil.copytree(folder, aside, symlinks=True)
        used = sum(-(-path.lstat().st_size // PAGE) + 1 for path in aside.rglob("*")) * PAGE
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={used // 1024 + 512}k,mode=0777", "none", str(folder)], check=True
        )
        self.undo.append(lambda: _unmount(folder, aside))
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        filling = os.open(folder / ".full", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(filling, bytes(PAGE))
        os.close(filling)

    def ledger(self, table: str, where: str, change: str) -> None:
        """Change rows of the ledger, past everything that keeps them sound, until it is mended."""
        kept = f"blast_{table}"
        if "night" in ledger_tables.metadata.tables[table].c:
            where = f"({where}) and night < '{self.night}'"

        def put() -> int:
            with rails_module.opened(self.at) as rails, rails.ledger.engine.begin() as connection:
                connection.execute(sa.text(f"create table {kept} as select * from {table} where {where}"))
                connection.execute(sa.text(f"alter table {table} disable trigger user"))
                return connection.execute(sa.text(f"update {table} set {change} where {where}")).rowcount

        def back() -> None:
            with rails_module.opened(self.at) as rails, rails.ledger.engine.begin() as connection:
                columns = [column["name"] for column in sa.inspect(connection).get_columns(table)]
                listed = ", ".join(f'"{name}"' for name in columns)
                key = ", ".join(
                    f'"{name}"' for name in sa.inspect(connection).get_pk_constraint(table)["constrained_columns"]
                )
                connection.execute(sa.text(f"alter table {table} disable trigger user"))
                connection.execute(
                    sa.text(f"delete from {table} where ({key}) in (select {key} from {kept}) or ({where})")
                )
                overriding = " overriding system value" if "id" in columns else ""
                connection.execute(sa.text(f"insert into {table} ({listed}){overriding} select {listed} from {kept}"))
                connection.execute(sa.text(f"drop table {kept}"))

        if in_a_process(put) == 0:
            raise SystemExit(f"{table} has no row where {where}: the fault was not put in.")
        self.undo.append(lambda: in_a_process(back))

    def mend(self) -> None:
        for step in reversed(self.undo):
            step()
        self.undo.clear()


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    group: str
    """What it is put into."""
    what: str
    """What is put in, as a sentence."""
    downstream: frozenset[str]
    """The models that stand on what it breaks. All others must not notice."""
    put_in: Callable[[Place], None]
    sources: tuple[str, ...] = ()
    """The sources whose features are done again by hand once it is mended."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of the night."""
    traps: tuple[Trap, ...] = ()
    """What happens inside of tasks."""
    trains: str = ""
    """A model that somebody trains by hand on that night."""
    opens: str = ""
    """A report that somebody opens afterwards, by its path; {night} is the night."""
    late: bool = False
    """Whether it is put in once the night's features are in service, which do not stand on what it breaks."""
    again: bool = False
    """Whether somebody does the night of the downstream models again by hand once it is mended: a version that did not
    score is no reason for a night to be due."""
    unseen: str = ""
    """Why nobody has to see it; empty where somebody must."""
    lasting: str = ""
    """Why the downstream models' night stays another one once it is mended; empty where it must be the undisturbed."""


def in_a_process(work: Callable[[], T]) -> T:
    """Do something in a fork: it may open connections, and this process stays one that has none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            value: object = (True, work())
        except BaseException as error:
            import traceback

            value = (False, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(value, pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        raise SystemExit("A process of the benchmark ended without a word.")
    went_well, value = pickle.loads(said)  # noqa: S301  # from a fork of this process
    if not went_well:
        raise SystemExit(str(value))
    return value  # type: ignore[no-any-return]


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _unmount(folder: Path, aside: Path) -> None:
    """Take the disk away; what was written to it stays."""
    (folder / ".full").unlink(missing_ok=True)
    shutil.rmtree(aside)
    shutil.copytree(folder, aside, symlinks=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)
    aside.rename(folder)


def all_of(*sources: str) -> frozenset[str]:
    return frozenset(name for source in sources for name in business.models_of(source))


KINDS: dict[str, Kind] = {}


def add(kind: Kind) -> Kind:
    if kind.name in KINDS:
        raise SystemExit(f"There are two kinds called {kind.name}.")
    KINDS[kind.name] = kind
    return kind


Kinds = Sequence[Kind]
