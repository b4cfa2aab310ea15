"""What files and folders of the home are called: a delivery or a page may bear the name of whom it is about."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tiltyard.tombstones import ERASED
from tiltyard.upkeep.erasing.hunt import Found, Hunt

_ERASED = ERASED.strip("()")
"""Stands in a name, where brackets would make a delivery one that is called like none."""


class NamesPlace:
    """Names of files and folders, at whatever depth; links and pipes among them."""

    name = "names"
    what = "names of files and folders of the home, landing zone and quarantine"

    def find(self, hunt: Hunt) -> Found:
        found = Found()
        for path, values in _bearing(hunt):
            found.add("files and folders", values, 1, {"file": os.fsencode(path).decode(errors="replace")}, hunt.most)
        return found

    def erase(self, hunt: Hunt, found: Found) -> None:
        """Each keeps its place and loses the name; what it holds is the other places' concern."""
        for path, _ in _bearing(hunt):
            struck = os.fsdecode(hunt.needles.struck(os.fsencode(path.name)))
            bare = first = path.with_name(struck.replace(ERASED, _ERASED))
            count = 1
            while os.path.lexists(bare):
                count += 1
                bare = first.with_name(f"{first.stem}-{count}{first.suffix}")
            with suppress(OSError):  # gone, or not ours to rename: the next look says that it is left
                path.rename(bare)


def _bearing(hunt: Hunt) -> Iterator[tuple[Path, set[str]]]:
    """(path, who is in its last part) of all that bear a name, what lies in a folder before the folder."""
    settings = hunt.rails.settings
    roots = {settings.home, settings.landing, settings.quarantine}
    for root in sorted(root for root in roots if not any(other in root.parents for other in roots)):
        for place, folders, names in os.walk(root, topdown=False):
            if settings.home / "postgres" in (Path(place), *Path(place).parents):
                continue
            for name in sorted([*folders, *names]):
                if values := hunt.needles.within(os.fsencode(name)):
                    yield Path(place) / name, values
