"""What is in service, ready to answer: per model its spec, its versions in memory, and what was known when they came.

The ledger decides who is in service. What it said last lies in home/serving/models/<model>.json beside the versions'
files in home/cache, so that the service starts and goes on without ledger, registry, lake or S3: it holds what it
had, digest by digest, until it hears otherwise. A model is exchanged whole, after its new versions have been warmed.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltyard import additive, online, postgres, registry
from tiltyard.breaker import Breaker
from tiltyard.encoding import Encoding
from tiltyard.errors import BadInput, Unavailable
from tiltyard.lane import Lane
from tiltyard.online import Value
from tiltyard.settings import Settings
from tiltyard.shadowing import Shadow
from tiltyard.spec import Spec, load_all

if TYPE_CHECKING:
    from tiltyard.ledger import Ledger
    from tiltyard.scorer import Scorer

log = logging.getLogger(__name__)

WARM = (1, 1, 1, 16)
"""Rows of the calls that warm a version before it takes traffic."""
LARGEST = 3.4e38
"""What float32 can hold, about: beyond, a number counts as missing, as it does in a frame."""
NAN = float("nan")


@dataclass(frozen=True)
class Kept:
    """What the ledger said of one model when it was asked last: all that is needed to serve it."""

    spec: Spec
    champion: int | None
    previous: int | None
    challengers: tuple[int, ...]
    versions: Mapping[int, Mapping[str, Any]]
    """version → the ledger's row of it: model, version, night, digests, where its files lie."""
    snapshot: int | None
    """The lake's snapshot that was published then."""
    popular: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> str:
        body = {
            "spec": self.spec.model_dump(mode="json", by_alias=True),
            "champion": self.champion,
            "previous": self.previous,
            "challengers": list(self.challengers),
            "versions": {
                str(number): {
                    "model": row["model"],
                    "version": row["version"],
                    "night": str(row["night"]),
                    "digests": row["digests"],
                    "facts": {"artifacts": row["facts"]["artifacts"]},
                }
                for number, row in sorted(self.versions.items())
            },
            "snapshot": self.snapshot,
            "popular": [dict(item) for item in self.popular],
        }
        text = json.dumps(body, sort_keys=True)
        return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "kept": body}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Kept":
        """Raises ValueError for what is not whole."""
        try:
            content = json.loads(text)
            body = content["kept"]
            if hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() != content["sha256"]:
                raise ValueError("its digest is another one")
            rows = {
                int(number): {**row, "night": date.fromisoformat(row["night"])}
                for number, row in body["versions"].items()
            }
            return cls(
                Spec(**body["spec"]),
                body["champion"],
                body["previous"],
                tuple(body["challengers"]),
                rows,
                body["snapshot"],
                tuple(body["popular"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}") from None


class Version:
    """One version in memory: encodes rows, scores them, and remembers how it has been doing."""

    def __init__(self, scorer: "Scorer") -> None:
        self.number = scorer.version
        self.scorer = scorer
        self.breaker = Breaker()
        self.lane: Lane | None = None
        """Made by whoever serves, with the first job; closed there when `is_closed` already."""
        self.shadow: Shadow | None = None
        """The same for rows that it scores as a challenger."""
        self.is_closed = False
        self.late_at = 0.0
        """When its breaker was last told that it was late, time.monotonic()."""
        self.kinds = {column.name: column.kind for column in scorer.encoding.columns}
        self.features = frozenset(self.kinds)
        self._codes = _codes(scorer.encoding)
        self._light = self._read_light()

    def matrix(self, rows: list[Mapping[str, Value]]) -> NDArray[np.float32]:
        """(rows, features) float32, exactly as Encoding.transform has it; what a row lacks is NaN.

        Raises TypeError for text where this version knows a number, or the other way round: a caller gives, and the
        store holds, what the version in service was trained with, and that may be of another kind.
        """
        return np.array([self._encoded(row) for row in rows], dtype=np.float32)

    def _encoded(self, row: Mapping[str, Value]) -> list[float]:
        encoded: list[float] = []
        for name, codes, other in self._codes:
            value: Any = row.get(name)
            if value is None:
                encoded.append(NAN)
            elif codes is None:
                encoded.append(value if -LARGEST < value < LARGEST else NAN)
            elif isinstance(value, str):
                encoded.append(codes.get(value, other))
            else:
                raise TypeError(f"{name} is text in version {self.number}, and {value!r} is none")
        return encoded

    def light(self, rows: NDArray[np.float32]) -> Sequence[float]:
        """The light twin's score of each encoded row, in microseconds where it is a sum over its columns."""
        if self._light is not None:
            return self._light.score(rows)
        return list(self.scorer.score_light_matrix(rows))

    def _read_light(self) -> additive.Additive | None:
        try:
            sample = self.scorer.encoding.transform(self.scorer.reference_frame())
            return additive.read(self.scorer.score_light_matrix, self.scorer.encoding, sample, self.scorer.bounds)
        except Exception as error:  # a twin that is read off wrongly, or not at all, is scored as it is
            log.warning("the light twin of %s version %s is not read off: %s", self.scorer.model, self.number, error)
            return None

    def close(self) -> None:
        """Out of service, from any thread: its threads end, and with them it leaves the memory."""
        self.is_closed = True  # first: a lane that is made meanwhile is closed by who makes it
        for one in (self.lane, self.shadow):
            if one is not None:
                one.close()

    def warm(self) -> None:
        """Score rows of nothing: allocations and lazy parts are done before anybody waits."""
        for rows in WARM:
            nothing = np.full((rows, len(self._codes)), np.nan, dtype=np.float32)
            self.scorer.score_matrix(nothing)
            self.scorer.score_light_matrix(nothing)


def _codes(encoding: Encoding) -> list[tuple[str, dict[str, float] | None, float]]:
    """Per column its name, the code of each category (None: a number passes through), and the code of the others."""
    return [
        (
            column.name,
            {value: float(code) for code, value in enumerate(column.categories)}
            if column.kind == "categorical"
            else None,
            float(len(column.categories)),
        )
        for column in encoding.columns
    ]


@dataclass(frozen=True)
class Servable:
    """A model in service. Immutable: another champion is another servable."""

    kept: Kept
    champion: Version | None
    previous: Version | None
    challenger: Version | None
    """The newest: the arm of an A/B split."""
    challengers: tuple[Version, ...]
    refused: Mapping[int, str]
    """Versions with a role that could not be loaded, and why."""
    plan: online.Plan
    keys: frozenset[str]
    """Key columns of the entity and of the feature views: what a caller may name."""
    kinds: Mapping[str, str]
    """feature → kind: what a caller may give. Of several versions the one that answers first says which kind."""

    @property
    def spec(self) -> Spec:
        return self.kept.spec


class Servables:
    """The models in service, by name: `current` is replaced whole, and may be read from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Mapping[str, Servable] = {}
        self.heard_at: float | None = None
        """When the ledger was heard last, time.time(); None: not since the start."""
        self.trouble: str | None = None
        """Why it was not, the last time."""
        self._versions: dict[tuple[str, int, str], Version] = {}
        self._tide: str | None = None
        self._read: tuple[Any, list[Spec]] | None = None
        """The specs, and of which files."""
        self._ledger: Ledger | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        return self.settings.home / "serving" / "models"

    def restore(self) -> int:
        """Put in service what was kept here. Returns the number of models; a damaged file is left out, and said."""
        kept = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                kept.append(Kept.from_json(path.read_text(encoding="utf-8")))
            except (ValueError, OSError) as error:
                log.warning("%s is not used: %s", path, error)
        with self._lock:
            self._serve(kept)
        return len(kept)

    def refresh(self) -> bool:
        """Ask the ledger who is in service. Returns whether anything changed; never raises: what was served goes on."""
        with self._lock:
            try:
                kept = self._ask()
            except Exception as error:  # whatever is down, the service is not
                self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._drop_ledger()
                return False
            self.heard_at, self.trouble = time.time(), None
            if kept is None:
                return False
            self._serve(kept)
            if any(one.refused for one in self.current.values()):
                self._tide = None  # files that could not be had may be there the next time
            for one in kept:
                self._keep(one)
            names = {one.spec.name for one in kept}
            for path in self.folder.glob("*.json"):
                if path.stem not in names:  # its folder under models/ is gone, and so is the model
                    path.unlink(missing_ok=True)
            return True

    def close(self) -> None:
        with self._lock:
            self._drop_ledger()

    def _ask(self) -> list[Kept] | None:
        """None when nothing has changed since the last time."""
        if not postgres.is_running(self.settings):
            raise Unavailable("PostgreSQL does not run.")
        if self._ledger is None:
            from tiltyard.ledger import Ledger

            self._ledger = Ledger(self.settings)
        specs = self._specs()
        tide = self._ledger.tide() + "".join(spec.digest for spec in specs)
        if tide == self._tide:
            return None
        row = self._ledger.published()
        published = row["summary"] if row else {}
        kept = [_asked(self._ledger, spec, published) for spec in specs]
        self._tide = tide
        return kept

    def _specs(self) -> list[Spec]:
        """The specs as they are now, read again when a file has changed; what does not hold leaves those in service."""
        files = sorted(self.settings.models.glob("*/spec.yaml"))
        changed = tuple((path, path.stat().st_mtime_ns) for path in files)
        if self._read is None or self._read[0] != changed:
            try:
                found = [spec for spec in load_all(self.settings.models) if spec.source in self.settings.sources]
            except BadInput as error:
                if not self.current:
                    raise
                log.warning("The specs in service stay: %s", error)
                found = [one.spec for one in self.current.values()]
            self._read = (changed, found)
        return self._read[1]

    def _drop_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger, self._tide = None, None

    def _serve(self, kept: list[Kept]) -> None:
        held = dict(self._versions)
        self._versions = {}
        self.current = {one.spec.name: self._servable(one, held) for one in kept}
        for key in held.keys() - self._versions.keys():
            held[key].close()

    def _servable(self, kept: Kept, held: Mapping[tuple[str, int, str], Version]) -> Servable:
        loaded: dict[int, Version] = {}
        refused: dict[int, str] = {}
        wanted = [number for number in (kept.champion, kept.previous, *kept.challengers[-2:]) if number is not None]
        for number in dict.fromkeys(wanted):
            row = kept.versions[number]
            key = (kept.spec.name, number, registry.whole(row))
            try:
                found = held.get(key) or self._loaded(row)
                loaded[number] = self._versions[key] = found
            except Exception as error:  # whatever is wrong with a version's files, another tier answers
                refused[number] = str(error)
                log.warning("%s version %s is not served: %s", kept.spec.name, number, error)
        challengers = tuple(loaded[number] for number in kept.challengers if number in loaded)
        return Servable(
            kept=kept,
            champion=loaded.get(kept.champion) if kept.champion is not None else None,
            previous=loaded.get(kept.previous) if kept.previous is not None else None,
            challenger=challengers[-1] if challengers else None,
            challengers=challengers,
            refused=refused,
            plan=(plan := online.plan(kept.spec)),
            keys=frozenset((plan.entity, *plan.others)),
            kinds={name: kind for one in reversed(loaded.values()) for name, kind in one.kinds.items()},
        )

    def _loaded(self, row: Mapping[str, Any]) -> Version:
        def tell(detail: dict[str, Any]) -> None:
            if self._ledger is not None:
                self._ledger.add_event("corrupt_artifact", row["model"], row["night"], detail)

        version = Version(registry.local(self.settings, row, tell))
        version.warm()
        return version

    def _keep(self, kept: Kept) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{kept.spec.name}.json"
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(kept.to_json(), encoding="utf-8")
        part.replace(path)


def _asked(ledger: "Ledger", spec: Spec, published: Mapping[str, Any]) -> Kept:
    roles = ledger.roles(spec.name, date.max)
    rows = {row["version"]: row for row in ledger.versions(spec.name)}
    wanted = {roles.champion, roles.previous, *roles.challengers} - {None}
    return Kept(
        spec=spec,
        champion=roles.champion,
        previous=roles.previous,
        challengers=roles.challengers,
        versions={number: rows[number] for number in wanted if number in rows},
        snapshot=published.get("snapshot"),
        popular=tuple(published.get("popular", {}).get(spec.name, ())),
    )
