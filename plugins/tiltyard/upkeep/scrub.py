"""The scrub: a look at the lake's files that nobody has read for long, so that what has turned there is found.

Every night a share of the files, those that were looked at longest ago, so that within `lake_scrub_nights` all of them
are; in a lake of plain files, whose reads find nothing, every file that is new as well, since the digest that it is
held against is taken at the first look. Each look is put down at once: killed anywhere, the next run goes on.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from tiltyard import damage, lake
from tiltyard.damage import LakeFile
from tiltyard.file_looks import FileLook
from tiltyard.lake import identifier
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import LakeDamage, ScrubSummary
from tiltyard.spec import portfolio
from tiltyard.tables import PREDICTION

Step = Callable[[str, float | None], None]
"""Told what is at work, and the share that is done."""
_FOR_EVER = 2**62
"""A snapshot that none comes after."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _There:
    """The lake's files, and what is known of each."""

    files: Sequence[LakeFile]
    known: dict[str, FileLook]


def scrub_night(rails: Rails) -> ScrubSummary:
    """Look at tonight's share of the files, and once more at every one that is damaged."""
    there = _there(rails)
    share = -(-len(there.files) // rails.settings.lake_scrub_nights)
    by_age = sorted(there.files, key=lambda file: (_looked_at(there, file), file.first, file.name))
    chosen = {file.name: file for file in by_age[:share]}
    if not lake.is_encrypted(rails.lake.connection):
        newest = _newest_looked_at(there)
        fresh = [file for file in there.files if file.name not in there.known and file.first >= newest]
        chosen |= {file.name: file for file in fresh}
    chosen |= {file.name: file for file in there.files if (look := there.known.get(file.name)) and look.damage}
    return _looked(rails, there, [*chosen.values()])


def may_rewrite(rails: Rails, table: str) -> bool:
    """Whether the files of a table may be made others: none that is known to be sound has turned since. What an
    encrypted lake rewrites it reads, and finds that; of plain files it would be written down as if it had been so."""
    there, is_plain = _there(rails), not lake.is_encrypted(rails.lake.connection)
    own = [
        file for file in there.files
        if file.table == table and file.last is None and (look := there.known.get(file.name))
        and (is_plain or look.damage)
    ]  # fmt: skip
    looks = [*damage.inspect(rails.lake, rails.ledger, own)]  # all of them, and not to the first that is damaged
    return not any(look.damage for look in looks)


def scrub_all(rails: Rails, step: Step) -> ScrubSummary:
    """Look at every file of the lake now."""
    there = _there(rails)
    return _looked(rails, there, there.files, step)


def damages(rails: Rails) -> tuple[LakeDamage, ...]:
    """The files that are damaged, by table, with who may have used each."""
    found = rails.ledger.file_looks.damaged()
    if not found:
        return ()
    there = {file.name: file for file in damage.files(rails.lake)}
    known = [(look, there[name]) for name, look in found.items() if name in there and look.damage]
    by_table = {table: _readers(rails, table) for table in {look.table for look, _ in known}}
    told = [
        LakeDamage(
            table=look.table, file=look.name, path=file.path, rows=look.rows, reason=str(look.damage),
            found_at=look.found_at or look.looked_at, is_current=file.last is None, models=by_table[look.table],
            versions=_trained(rails, by_table[look.table], file), answers=_answers(rails, by_table[look.table], file),
        )
        for look, file in known
    ]  # fmt: skip
    return tuple(sorted(told, key=lambda one: (one.table, one.file)))


def _there(rails: Rails) -> _There:
    """What there is; what is known of files that nothing reads any more is forgotten."""
    files = damage.files(rails.lake)
    known = dict(rails.ledger.file_looks.every())
    gone = known.keys() - {file.name for file in files}
    for look in (known.pop(name) for name in gone):
        if look.damage:
            detail = {"table": look.table, "file": look.name, "rows": look.rows, "reason": "nothing reads it any more"}
            rails.ledger.add_event(damage.MENDED, "", None, detail)
    if gone:
        rails.ledger.file_looks.forget(gone)
    return _There(files, known)


def _looked(rails: Rails, there: _There, chosen: Sequence[LakeFile], step: Step | None = None) -> ScrubSummary:
    total, done, read = sum(file.bytes for file in chosen) or 1, 0, 0
    for file in chosen:
        if step:
            step(file.table, done / total)
        for _ in damage.inspect(rails.lake, rails.ledger, [file]):
            read += 1
        done += file.bytes
    known = rails.ledger.file_looks.every()
    looked_at = [known[file.name].looked_at for file in there.files if file.name in known]
    return ScrubSummary(
        is_encrypted=lake.is_encrypted(rails.lake.connection),
        files=len(there.files),
        looked_at=read,
        bytes=done,
        never=len(there.files) - len(looked_at),
        oldest=min(looked_at, default=None),
        damaged=damages(rails),
    )


def _looked_at(there: _There, file: LakeFile) -> datetime:
    look = there.known.get(file.name)
    return look.looked_at if look else _NEVER


def _newest_looked_at(there: _There) -> int:
    """The snapshot that wrote the newest file that was ever looked at; 0 before the first look."""
    return max((file.first for file in there.files if file.name in there.known), default=0)


def _readers(rails: Rails, table: str) -> tuple[str, ...]:
    """The models that stand on a table, at whatever distance; none for one that stages write."""
    specs, feeding = portfolio(rails.settings), Feeding.as_built(rails.settings)
    name = table if table.startswith("raw.") else table.split(".")[-1].removesuffix("__answers")
    if feeding:
        return feeding.readers(specs, name)
    return tuple(spec.name for spec in specs if name in spec.tables)


def _trained(rails: Rails, models: Collection[str], file: LakeFile) -> dict[str, tuple[int, ...]]:
    """Model → its versions whose frame was read from a snapshot that reads the file."""
    found = {
        model: tuple(
            version.version for version in rails.ledger.versions(model)
            if version.facts.snapshot is not None and file.first <= version.facts.snapshot < (file.last or _FOR_EVER)
        )
        for model in models
    }  # fmt: skip
    return {model: versions for model, versions in found.items() if versions}


def _answers(rails: Rails, models: Collection[str], file: LakeFile) -> dict[str, int] | None:
    """Model → number of its answers from a snapshot that reads the file; None where they lie in a damaged file, too."""
    if not models or not rails.lake.has(PREDICTION):
        return {}
    try:
        rows = rails.lake.connection.execute(
            f"select model, count(*) from {identifier(PREDICTION)} where list_contains($models, model) "
            "and snapshot >= $first and snapshot < $last and tier <> 'shadow' group by model order by model",
            {"models": [*models], "first": file.first, "last": file.last or _FOR_EVER},
        ).fetchall()
    except duckdb.Error:
        return None
    return {str(model): int(count) for model, count in rows}
