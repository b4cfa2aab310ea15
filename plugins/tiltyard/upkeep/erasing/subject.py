"""What a person may know: all that is held about one, place by place."""

from tiltyard import clock, tombstones
from tiltyard.errors import BadInput
from tiltyard.prepare import whose
from tiltyard.rails import Rails
from tiltyard.records import HeldPart, HeldPlace, Subject
from tiltyard.upkeep.erasing.erase import Step, learned, nobody
from tiltyard.upkeep.erasing.hunt import Hunt
from tiltyard.upkeep.erasing.places import PLACES


def subject(rails: Rails, value: str, *, entity: str | None, most: int, step: Step | None = None) -> Subject:
    """All that is held about one: how much per place and part, and the first `most` rows of each.

    Raises BadInput for an entity that no model is about, and for one whom nobody knows.
    """
    held = whose.of(rails.settings, whose.only(rails.settings, entity))
    hunt = Hunt.of(rails, held, [tombstones.normal(value)], most)
    places, notes, frames = [], [f"{sentence}, so that it was not looked for there" for sentence in held.doubts], []
    for number, place in enumerate(PLACES):
        if step is not None:
            step(f"looking: {place.name}", number / len(PLACES))
        found = place.find(hunt)
        parts = tuple(
            HeldPart(part=part, count=count, rows=tuple(found.rows.get(part, ())))
            for part, count in sorted(found.counts.items())
        )
        places.append(HeldPlace(place=place.name, what=place.what, parts=parts))
        notes += found.notes
        if place.name == "frames":
            frames = [*found.counts]
    if not any(place.parts for place in places):
        raise BadInput(nobody(held, [value]))
    return Subject(
        entity=held.entity, value=tombstones.normal(value), at=clock.now(), places=tuple(places),
        learned=tuple(learned(rails, frames)), notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip
