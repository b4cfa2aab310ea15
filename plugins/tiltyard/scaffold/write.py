"""The one place that writes into a checkout. Nothing that is there is written over."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tiltyard import private
from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.settings import Settings

EXPOSURES = PurePosixPath("dbt/models/_models__exposures.yml")
"""The one file that is there already: exposures are added at its end."""


def place(settings: Settings, path: PurePosixPath) -> Path:
    """Where a path below the checkout lies by these settings."""
    roots = {"dbt": settings.dbt, "models": settings.models, "expectations": settings.expectations}
    return roots[path.parts[0]].joinpath(*path.parts[1:])


def taken_back(paths: Sequence[Path]) -> None:
    """Take away what `files` has written, and the folders that are empty then: of what was half done nothing stays."""
    for path in paths:
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def files(settings: Settings, texts: Mapping[PurePosixPath, str], exposure: str | None = None) -> tuple[Path, ...]:
    """Write the texts where they belong; all of them, or none. Raises BadInput naming the first that is there as
    another text. What is there as it would be written is of a run that was ended, and is no obstacle."""
    places = {place(settings, path): text for path, text in texts.items()}
    for path, text in places.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
            raise BadInput(
                f"{path} is there already, and nothing is written over; choose another name, or take it away."
            )
    ordered = sorted(places, key=lambda path: path.name == "spec.yaml")  # with it the model is there, and all sees it
    if exposure is not None:
        path = place(settings, EXPOSURES)
        before = path.read_text(encoding="utf-8") if path.exists() else "version: 2\n\nexposures:\n"
        is_there = exposure.strip("\n") in before
        places[path] = before if is_there else before.rstrip("\n") + "\n\n" + exposure
        ordered.insert(len(ordered) - 1, path)
    for path in ordered:
        with private.as_usual():  # the checkout is whose it is
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path, lasting=True) as part:
                part.write_text(places[path], encoding="utf-8")
    return tuple(ordered)
