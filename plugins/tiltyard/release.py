"""The release in force: the specs, suites and dbt project that were accepted last, as files under the home.

A release is a folder named by the digest of its content; `prepare.releasing` makes it. What was never accepted changes
nothing: a stage reads the files of the release in force, whatever lies in the checkout meanwhile. Before the first
release of a home the files of the checkout count as they are.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tiltyard.errors import BadInput
from tiltyard.files import whole, whole_folder
from tiltyard.settings import ENV_PREFIX, Settings
from tiltyard.words import listed

PARTS = ("models", "expectations", "dbt")
"""What a release is made of, as the folders of a checkout are called."""
LEFT_OUT = ("target", "logs", "dbt_packages", "__pycache__")
"""Folders that a tool writes into the checkout, and no text of ours."""
Difference = Literal["new", "changed", "removed"]
"""How a model of the checkout differs from the one in force."""
_DIGITS = 16

Texts = Mapping[str, bytes]
"""Path, like `models/churn/spec.yaml`, → content."""


@dataclass(frozen=True)
class Changes:
    """How texts differ from those before them."""

    new: int
    """Number of files that were not there."""
    changed: int
    """Number of files with another content."""
    gone: int
    """Number of files that are not there any more."""

    @classmethod
    def between(cls, before: Texts, after: Texts) -> "Changes":
        """From one set of texts to another."""
        both = before.keys() & after.keys()
        return cls(len(after) - len(both), sum(before[path] != after[path] for path in both), len(before) - len(both))

    def __str__(self) -> str:
        return f"{self.new} new, {self.changed} changed, {self.gone} gone"


@dataclass(frozen=True)
class Pending:
    """How the checkout differs from the release in force: what waits to take effect."""

    models: Mapping[str, Difference] = field(default_factory=dict)
    """Model → how it differs, of those that do."""
    shared: Changes = Changes(0, 0, 0)
    """The files that are no model's: the dbt project, the suites, what holds for all models."""

    @classmethod
    def between(cls, before: Texts, after: Texts, there: Collection[str] | None = None) -> "Pending":
        """From one set of texts to another; `there` are the models that have a folder, by default those with a spec."""
        old, new = _models(before), _models(after)
        kept = new if there is None else there
        differing: dict[str, Difference] = {}
        for name in sorted(old | new):
            if name not in old:
                differing[name] = "new"
            elif name not in kept:
                differing[name] = "removed"
            elif _of_model(name, before) != _of_model(name, after):
                differing[name] = "changed"
        return cls(differing, Changes.between(_shared(before), _shared(after)))

    @property
    def named(self) -> str:
        """What differs, model by model; empty where nothing does."""
        parts = [listed([f"{name} ({how})" for name, how in self.models.items()])] if self.models else []
        if self.shared != Changes(0, 0, 0):
            parts.append(f"files of all models ({self.shared})")
        return "; ".join(parts)

    def __str__(self) -> str:
        """What is not in force yet, and the way out, as a sentence; empty where nothing waits."""
        if not self.named:
            return ""
        return (
            f"Not in force yet: {self.named}. The next night puts in force what is acceptable of the checkout, "
            "and tiltyard release does at once and names what is refused."
        )


def pending(settings: Settings) -> Pending:
    """What of the checkout waits to take effect. `settings` of the checkout. Nothing before the first release, when the
    checkout counts as it is. Raises BadInput for a file that cannot be read."""
    folder = current(settings)
    if folder is None:
        return Pending()
    before, after = stored(folder), working(settings)
    for part in missing(settings):  # a folder that is not there takes nothing away
        after |= {path: content for path, content in before.items() if path.startswith(f"{part}/")}
    there = folders(settings.models) if settings.models.is_dir() else _models(before)
    return Pending.between(before, after, there)


def changed(before: Texts, after: Texts) -> tuple[str, ...]:
    """What differs between two sets of texts, sorted: files, and of models their folder, like `models/churn`."""
    paths = (path for path in {*before, *after} if before.get(path) != after.get(path))
    return tuple(sorted({found[0] if (found := re.match(r"models/[^/]+(?=/)", path)) else path for path in paths}))


def _models(texts: Texts) -> frozenset[str]:
    return frozenset(path.split("/")[1] for path in texts if re.fullmatch(r"models/[^/]+/spec\.yaml", path))


def _of_model(name: str, texts: Texts) -> dict[str, bytes]:
    return {path: content for path, content in texts.items() if path.startswith(f"models/{name}/")}


def _shared(texts: Texts) -> dict[str, bytes]:
    return {path: content for path, content in texts.items() if not re.match(r"models/[^/]+/", path)}


def in_force(settings: Settings) -> Settings:
    """The settings with the files of the release in force; as they are before the first one."""
    folder = current(settings)
    return settings.model_copy(update={part: folder / part for part in PARTS}) if folder else settings


def current(settings: Settings) -> Path | None:
    """The folder of the release in force; None before the first one."""
    try:
        name = pointer(settings).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    folder = settings.home / "releases" / name
    return folder if re.fullmatch(r"[0-9a-f]+", name) and folder.is_dir() else None


def name(settings: Settings) -> str | None:
    """Folder of the release that these settings read; None where they read the checkout."""
    folder = settings.models.parent
    return folder.name if folder.parent == settings.home / "releases" else None


def working(settings: Settings) -> dict[str, bytes]:
    """The texts as they lie in the checkout, hidden files apart. Raises BadInput for a file that cannot be read."""
    texts: dict[str, bytes] = {}
    for part in PARTS:
        texts.update(_texts(getattr(settings, part), part))
    return texts


def missing(settings: Settings) -> dict[str, str]:
    """The parts of which the checkout has no folder → what to do about it, as a sentence."""
    return {
        part: f"{folder} is no folder; put it back, or set {ENV_PREFIX}{part.upper()} to where it is."
        for part in PARTS
        if not (folder := getattr(settings, part)).is_dir()
    }


def folders(models: Path) -> frozenset[str]:
    """The models that have a folder, whatever lies in it: those that nobody has deleted."""
    return frozenset(
        path.name
        for path in (models.iterdir() if models.is_dir() else ())
        if (path.is_dir() or path.is_symlink()) and not path.name.startswith(".")
    )


def stored(folder: Path | None) -> dict[str, bytes]:
    """The texts of a release; none for None."""
    texts: dict[str, bytes] = {}
    for part in PARTS if folder else ():
        assert folder is not None
        texts.update(_texts(folder / part, part))
    return texts


def digest(texts: Texts) -> str:
    """SHA-256 of the texts with their paths, in hex."""
    lines = (f"{path} {hashlib.sha256(content).hexdigest()}\n" for path, content in sorted(texts.items()))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write(texts: Texts, folder: Path) -> None:
    """Write texts under a folder, with a folder for every part."""
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for path, content in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def keep(settings: Settings, texts: Texts) -> Path:
    """The folder that keeps a release, written whole where it is not there yet, and again where somebody changed it."""
    folder = settings.home / "releases" / digest(texts)[:_DIGITS]
    if folder.is_dir() and digest(stored(folder)) != digest(texts):
        folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.changed"))  # for whoever asks who did it
    if not folder.is_dir():
        with whole_folder(folder) as part:
            write(texts, part)
    return folder


def kept(settings: Settings, digest: str) -> Path | None:
    """The folder of the release with this digest, where it is kept."""
    folder = settings.home / "releases" / digest[:_DIGITS]
    return folder if folder.is_dir() else None


def put_in_force(settings: Settings, folder: Path) -> None:
    """Let a release that is kept be the one in force from now on."""
    with whole(pointer(settings), lasting=True) as part:
        part.write_text(folder.name, encoding="utf-8")


def pointer(settings: Settings) -> Path:
    """The file that names the release in force."""
    return settings.home / "releases" / "current"


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through links, but none twice."""
    passed: set[str] = set()
    for name, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(name)
        if real in passed:
            below.clear()  # a link that leads back
            continue
        passed.add(real)
        yield from (Path(name, file) for file in files)


def _texts(folder: Path, part: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(_files(folder)):
        below = path.relative_to(folder)
        if any(name.startswith(".") or name in LEFT_OUT for name in below.parts) or not path.is_file():
            continue
        try:
            yield f"{part}/{below.as_posix()}", path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}); mend that, or take it away.") from None
