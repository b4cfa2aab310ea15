"""What has landed here; where nothing has, where it was looked for, and what to do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tiltyard import clock
from tiltyard.cli.output import caution
from tiltyard.errors import BadInput
from tiltyard.settings import Settings
from tiltyard.words import listed

if TYPE_CHECKING:
    from tiltyard.edge.document import NoNight
    from tiltyard.rails import Rails


def require(rails: "Rails", sources: Sequence[str]) -> None:
    """Raises BadInput where nothing of any of these sources has ever landed: no night can be made of that."""
    if sentence := nothing(rails, sources):
        raise BadInput(sentence)


def nothing(rails: "Rails", sources: Sequence[str]) -> str | None:
    """That nothing of these sources has ever landed, and the way out; None where something has, or none is named."""
    from tiltyard.prepare import contracts, ingest

    if not sources or any(_lies_there(rails.settings, source) for source in sources):
        return None
    if any(contracts.fetches(rails.settings, source) for source in sources):
        return None  # it is fetched when it is ingested
    if any(ingest.newest_delivery(rails, source) for source in sources):
        return None  # its files may be gone, its rows are in the lake
    return (
        f"Nothing has landed here yet of {', '.join(sources)}: there is no file in {places(rails.settings, sources)}; "
        f"{_way_out(sources)}."
    )


def require_possible(rails: "Rails", sources: Sequence[str], *nights: datetime) -> None:
    """Raises BadInput for a night that none of these sources can have (prepare/possible.py)."""
    from tiltyard.prepare import possible

    possible.require(rails, sources, clock.now(), *nights)


def able(rails: "Rails", sources: Sequence[str], night: datetime) -> tuple[str, ...]:
    """Those of these sources that can have a night; who is left out is said on the terminal. Raises BadInput where none
    can (prepare/possible.py)."""
    from tiltyard.prepare import possible

    found = possible.able(rails, sources, clock.now(), night)
    if others := [source for source in sources if source not in found]:
        caution(
            f"The night of {clock.night_of(night)} is none of {listed(others)}, whose newest delivery lies "
            f"{possible.AHEAD.days} days or more before it: left out."
        )
    return found


def first_step(rails: "Rails", document: "NoNight", source: str) -> "NoNight":
    """The document of a model without a night, with what comes before one where nothing has landed."""
    sentence = nothing(rails, (source,))
    return replace(document, state=f"{document.state}. But first: {sentence}") if sentence else document


def places(settings: Settings, sources: Sequence[str]) -> str:
    """Where the deliveries of these sources are looked for."""
    return ", ".join(str(settings.landing / source) for source in sources)


def _lies_there(settings: Settings, source: str) -> bool:
    folder = settings.landing / source
    return any(path.is_file() and not path.name.startswith(".") for path in folder.glob("*/*"))


def _way_out(sources: Sequence[str]) -> str:
    """What brings deliveries of these sources."""
    from tiltyard.prepare import datasets

    names = {dataset.source: name for name, dataset in datasets.PUBLIC.items()} | {"subscription": "simulated"}
    own = [source for source in sources if source not in names]
    steps = [
        f"run tiltyard data fetch {names[source]}, or make up DATA={names[source]} for that and all that follows"
        for source in sources
        if source in names
    ]
    steps += [f"put deliveries there, like {source}/TABLE/2016-03-01.csv" for source in own]
    return "; ".join(steps)
