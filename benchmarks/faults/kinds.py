"""All kinds of fault, and the night on which nothing happens."""

from faults import kinds_file, kinds_ledger, kinds_place, kinds_process, kinds_text
from faults.kind import KINDS, Kind, Place, add

__all__ = ["KINDS", "kinds_file", "kinds_ledger", "kinds_place", "kinds_process", "kinds_text"]


def nothing(place: Place) -> None:
    """The null test: a night without a fault is the undisturbed one."""


add(Kind("nothing", "nothing", "Nothing at all: the night is the undisturbed one.", frozenset(), nothing))
