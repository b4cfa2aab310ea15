"""MLflow's aliases follow the ledger, which decides."""

from collections.abc import Sequence
from datetime import date, datetime

from tiltyard.clock import night_closing
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.succession import ChampionChange
from tiltyard.train import registry


def reconcile(rails: Rails, spec: Spec, as_of: datetime) -> tuple[str, ...]:
    """Put the aliases champion and previous back to what the ledger says, and record who was found there.

    Nights older than the newest change leave them alone: a rerun of the past must not undo the present. Returns the
    aliases that were put back.
    """
    night = night_closing(as_of)
    if not rails.ledger.versions(spec.name):
        return ()
    changes = rails.ledger.changes(spec.name)
    if changes and night < changes[-1].night:
        return ()
    present = registry.aliases(rails, spec.name)
    moved = []
    for alias, version in _wanted(changes).items():
        if present.get(alias) != version:
            kind = "alias_moved_by_hand" if alias in present else "alias_missing"
            detail = {"alias": alias, "found": present.get(alias), "put_back": version}
            rails.ledger.add_event(kind, spec.name, night, detail)
            registry.set_alias(rails, spec.name, alias, version)
            moved.append(alias)
    return tuple(moved)


def follow(rails: Rails, spec: Spec, night: date) -> None:
    """Let the aliases follow the change of this night, unless a later one has come."""
    changes = rails.ledger.changes(spec.name)
    if changes and night < changes[-1].night:
        return
    present = registry.aliases(rails, spec.name)
    for alias, version in _wanted(changes).items():
        if present.get(alias) != version:
            registry.set_alias(rails, spec.name, alias, version)


def _wanted(changes: Sequence[ChampionChange]) -> dict[str, int | None]:
    """alias → version; `previous` first, so that whoever looks in between finds a champion."""
    newest = changes[-1] if changes else None
    return {"previous": newest.previous if newest else None, "champion": newest.champion if newest else None}
