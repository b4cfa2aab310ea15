"""Erasing: everywhere, with a receipt, and for good.

First a tombstone stands in the ledger, from which on nothing of them is taken in; then place after place is emptied;
then every place is looked through once more, and only where nothing is found is it done. Every step may be repeated:
who is killed anywhere is called again with the same names, and goes on. What was there is counted before it goes.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from tiltyard import clock, tombstones
from tiltyard.errors import BadInput
from tiltyard.files import remove_abandoned
from tiltyard.lake import identifier, quoted
from tiltyard.prepare import columns, ingest, rebuilding, whose
from tiltyard.prepare.whose import Whose
from tiltyard.rails import Rails
from tiltyard.records import Erasure, Learned, Receipt
from tiltyard.spec import feature_key, load_all
from tiltyard.tables import BUILT, INGEST_RUN, LANDED_FILE
from tiltyard.upkeep import holds
from tiltyard.upkeep.erasing.hunt import Found, Hunt
from tiltyard.upkeep.erasing.places import PLACES
from tiltyard.words import listed

MOST = 1_000
"""How many are erased in one pass."""
LEFT = 20
"""Places that a receipt of a failed erasure names."""
Step = Callable[[str, float | None], None]
"""Takes the label of a step and the share of the work that is done."""


@dataclass(frozen=True)
class Erased:
    """What came of a call."""

    receipt: Receipt
    """Of these, or of the erasure that was done before."""
    unknown: tuple[str, ...] = ()
    """Of whom nothing is held, and of whom no tombstone stands."""
    was_before: bool = False
    """Whether they were erased before, and nothing of them has come since."""


def erase(
    rails: Rails, values: Collection[str], *, entity: str | None, by: str, reason: str, step: Step | None = None
) -> Erased:
    """Erase these everywhere, in one pass. Twice is once.

    Raises BadInput, with nothing changed, for an entity that no model is about, more than MOST, a reason that names
    one of them, columns of which nobody says whose they are, while a legal hold stands, and where nobody knows any of
    them. What is left where the rescan finds something stands in the receipt, which is then of a failed erasure.
    """
    said = step or (lambda label, share: None)
    began = time.monotonic()
    rails.ledger.require_right("DELETE")
    names = frozenset(filter(None, map(tombstones.normal, values)))
    held = _wanted(rails, names, entity, reason)
    for folder in rails.settings.folders:  # a writer that was stopped, of an erasure too, leaves what it has copied
        remove_abandoned(folder)
    hunt = Hunt.of(rails, held, names)
    found = {}
    for place, each in enumerate(PLACES):
        said(f"looking: {each.name}", place / (3 * len(PLACES)))
        found[each.name] = each.find(hunt)
    doubts = [sentence for own in found.values() for sentence in own.doubts]
    if doubts:
        raise BadInput(f"Nothing was erased: {'; '.join(doubts)}.")
    key = tombstones.key_of(rails.settings, make=True)
    mine = {value: tombstones.made(key, held.entity, value) for value in names}
    there = rails.ledger.erasures.hashes()
    tombstones.known(rails.settings, *there)  # raises where the key is another one
    known = {value for own in found.values() for value in own.values} & names
    before = {value for value in names if mine[value] in there[0].get(held.entity, ())}
    if not known | before:
        raise BadInput(nobody(held, names))
    going = known | before
    unfinished = any({*one.hashes} & {*mine.values()} for one in rails.ledger.erasures.unfinished())
    if not known and not unfinished:
        return Erased(_receipt_of(rails, [mine[value] for value in going]), tuple(sorted(names - going)), True)
    erasure = rails.ledger.erasures.open(
        held.entity, [mine[value] for value in going], mark=tombstones.mark(key), by=by, reason=reason.strip()
    )
    tombstones.known(rails.settings, *rails.ledger.erasures.hashes())
    hunt = replace(Hunt.of(rails, held, going), erasure=erasure.id)
    receipt = _emptied(rails, hunt, erasure, found, began, said)
    return Erased(receipt, tuple(sorted(names - going)))


def _wanted(rails: Rails, names: Collection[str], entity: str | None, reason: str) -> Whose:
    """What holds the entity. Raises BadInput where that is not to be erased."""
    if not names:
        raise BadInput("Nobody is named; give who is to be erased, or --from FILE with one in each line.")
    if len(names) > MOST:
        raise BadInput(f"{len(names):,} are named, and {MOST:,} at most are erased in one pass; part the file.")
    if not reason.strip():
        raise BadInput("Somebody is erased for a reason; say why, like --reason 'request 17'. Do not name them there.")
    hunt_for = [name for name in names if name in reason]
    if hunt_for:
        raise BadInput("The reason names who is to be erased, and stays for good; say why without, like 'request 17'.")
    held = whose.of(rails.settings, whose.only(rails.settings, entity))
    if held.doubts:
        raise BadInput(f"Nothing was erased: {'; '.join(held.doubts)}.")
    if standing := holds.sentences(rails):
        raise BadInput(f"Nothing is erased while a legal hold stands: {standing[0]}")
    return held


def nobody(held: Whose, names: Collection[str]) -> str:
    who = "this one" if len(names) == 1 else f"any of these {len(names):,}"
    return (
        f"Nobody here knows {who}: no {held.entity} of that name is in {listed(held.raw)}, nor anywhere else, and none "
        "was erased. Check how it is spelled, and --entity."
    )


def _emptied(rails: Rails, hunt: Hunt, erasure: Erasure, found: dict[str, Found], began: float, said: Step) -> Receipt:
    """Empty every place, look through all of them once more, and put down what came of it."""
    ledger = rails.ledger.erasures
    _touch(rails, hunt, erasure)
    for place, each in enumerate(PLACES):
        said(f"erasing: {each.name}", (1 + place / len(PLACES)) / 3)
        own = found[each.name]
        if own.counts:
            ledger.found(erasure.id, each.name, own.counts)
            each.erase(hunt, own)
    left: list[str] = []
    notes: dict[str, None] = {}
    for place, each in enumerate(PLACES):
        said(f"looking once more: {each.name}", (2 + place / len(PLACES)) / 3)
        again = each.find(hunt)
        if again.counts and not again.doubts:  # what an earlier place has brought in, or a neighbour wrote meanwhile
            each.erase(hunt, again)
            again = each.find(hunt)
        left += [f"{each.name}: {part} ({count:,})" for part, count in sorted(again.counts.items())]
        notes |= dict.fromkeys(again.notes)
    counts = ledger.counts(erasure.id)
    versions = learned(rails, [*counts.get("frames", {})])
    notes |= dict.fromkeys(_notes(rails, hunt, versions))
    receipt = Receipt(
        erasure=erasure.id, entity=erasure.entity, hashes=erasure.hashes, reason=erasure.reason,
        requested_by=erasure.requested_by, begun_at=erasure.recorded_at, ended_at=clock.now(),
        attempt=ledger.attempts(erasure.id) + 1, counts=counts, learned=tuple(versions),
        left=(*left[:LEFT], *([f"{len(left) - LEFT:,} more"] if len(left) > LEFT else [])),
        notes=tuple(notes), seconds=round(time.monotonic() - began, 2),
    )  # fmt: skip
    ledger.end(receipt)
    return receipt


def _touch(rails: Rails, hunt: Hunt, erasure: Erasure) -> None:
    """Put down which rows of which views were counted with rows of theirs, and have these views made anew: replay then
    knows why they differ, and the next build counts all of them without."""
    lake, said = rails.lake, columns.read(rails.settings)
    every = load_all(rails.settings.models)
    views = {view for spec in every for view in spec.prediction.features if view not in hunt.whose.views}
    wanted = {"who": sorted(hunt.values)}
    there = {table: lake.columns(table) for table in hunt.whose.columns if lake.has(table)}
    anew: dict[str, set[str]] = {}
    for view in sorted(views):
        key, keys = feature_key(view), set[str]()
        for table, own in there.items():
            theirs = " or ".join(
                f"list_contains($who, trim(cast({quoted(name)} as varchar)))" for name in hunt.whose.columns[table]
            )
            for column in {key, *said.keys(view, key, table)} & own.keys():
                rows = lake.connection.execute(
                    f"select distinct cast({quoted(column)} as varchar) from {identifier(table)} where {theirs}", wanted
                ).fetchall()
                keys |= {value for (value,) in rows if value is not None}
        if keys:
            rails.ledger.erasures.touch(erasure.id, view, keys, lake.snapshot())
            for source in {spec.source for spec in every if view in spec.prediction.features}:
                anew.setdefault(source, set()).add(view)
    for own_table in (LANDED_FILE, INGEST_RUN, BUILT) if anew else ():
        lake.ensure(own_table)
    for source, tables in anew.items():
        rebuilding.pending(rails, source, tables, ingest.stamp(rails, source))


def learned(rails: Rails, frames: Collection[str]) -> list[Learned]:
    """The versions whose training frame was one of these."""
    follows = {spec.name: spec.privacy.on_erasure for spec in load_all(rails.settings.models)}
    return [
        Learned(
            model=model, version=version.version, frame=version.facts.frame or "",
            follows=follows.get(model, "record"),
        )
        for model in sorted(rails.ledger.models())
        for version in rails.ledger.versions(model)
        if version.facts.frame in frames
    ]  # fmt: skip


def _notes(rails: Rails, hunt: Hunt, versions: Collection[Learned]) -> list[str]:
    """What a person should know, a sentence each, without the full stop."""
    notes = []
    if versions:
        names = listed([f"{one.model} v{one.version}" for one in versions])
        notes.append(
            f"{names} learned from rows of them; what was learned stays in the versions, with a sample of rows without "
            "keys (reference.parquet), until they are gone"
        )
    for spec in load_all(rails.settings.models):
        if spec.name not in hunt.whose.models or spec.deliver is None:
            continue
        to = spec.deliver.table or spec.deliver.folder or ""
        if spec.deliver.table or to.startswith(("s3://", "/")):
            notes.append(f"answers of {spec.name} were brought to {to}, beyond this home: erase them there")
    notes.append("backups, and the write-ahead log of the database until it has turned over, are beyond this command")
    return notes


def _receipt_of(rails: Rails, hashes: Collection[str]) -> Receipt:
    """The newest receipt of any of these."""
    own = [one for one in rails.ledger.erasures.receipts(done=True) if {*one.hashes} & {*hashes}]
    return own[-1]
