"""What is in service, ready to answer: per model its spec, its versions in memory, and what was known when they came.

The ledger decides who is in service. What it said last lies in home/serving/models/<model>.json beside the versions'
files in home/cache, so that the service starts and goes on without ledger, registry, lake or S3: it holds what it
had, digest by digest, until it hears otherwise. A model is exchanged whole, after its new versions have been warmed.

Starting and exchanging read this machine's disk alone. What is not in the cache is brought there by `fetch`, beside
everything else, and takes its place when it has come; a version that cannot be had is tried again later and later.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltyard import postgres
from tiltyard.errors import BadInput, Unavailable
from tiltyard.files import whole
from tiltyard.online import lookup
from tiltyard.online.store import Value
from tiltyard.serve import additive
from tiltyard.serve.breaker import Breaker
from tiltyard.serve.lane import Lane
from tiltyard.serve.shadowing import Shadow
from tiltyard.settings import Settings
from tiltyard.spec import Spec, load_all
from tiltyard.train import registry
from tiltyard.train.encoding import Encoding

if TYPE_CHECKING:
    from tiltyard.ledger import Ledger
    from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

WARM = (1, 1, 1, 16)
"""Rows of the calls that warm a version before it takes traffic."""
LARGEST = 3.4e38
"""What float32 can hold, about: beyond, a number counts as missing, as it does in a frame."""
NAN = float("nan")
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""A version that cannot be loaded is left alone for so long; it doubles, up to the second."""
Key = tuple[str, int, str]
"""(model, version, the digest of its files)."""


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
    plan: lookup.LookupPlan
    keys: frozenset[str]
    """Key columns of the entity and of the feature views: what a caller may name."""
    kinds: Mapping[str, str]
    """feature → kind: what a caller may give. Of several versions the one that answers first says which kind."""

    @property
    def spec(self) -> Spec:
        return self.kept.spec


@dataclass(frozen=True)
class Failure:
    """Why a version is not loaded, and when it is tried again."""

    said: str
    times: int
    again_at: float
    """time.monotonic()"""


class Servables:
    """The models in service, by name: `current` is replaced whole, and may be read from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Mapping[str, Servable] = {}
        self.heard_at: float | None = None
        """When the ledger was heard last, time.time(); None: not since the start."""
        self.trouble: str | None = None
        """Why it was not, the last time; or what of it could not be kept."""
        self.lacks = threading.Event()
        """Set when a version is wanted that has to be fetched."""
        self._versions: dict[Key, Version] = {}
        self._missing: dict[Key, Mapping[str, Any]] = {}
        """Versions with a role that are not loaded → the ledger's row."""
        self._failures: dict[Key, Failure] = {}
        self._is_kept = True
        """Is what is in service written down here?"""
        self._tide: str | None = None
        self._read: tuple[Any, list[Spec]] | None = None
        """The specs, and of which files."""
        self._ledger: Ledger | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        return self.settings.home / "serving" / "models"

    def restore(self) -> int:
        """Put in service what was kept here, with what the cache holds. Returns the number of models; a damaged file is
        left out, and said."""
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
                self.heard_at = time.time()
                if kept is not None:
                    self._serve(kept)
                    self._is_kept = False
                self.trouble = None if self._is_kept else self._keep_all()
            except Exception as error:  # whatever is down, the service is not
                self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._drop_ledger()
                return False
            return kept is not None

    def fetch(self) -> None:
        """Bring into the cache what is missing there, one version at a time, while others serve and change; each takes
        its place when it has come."""
        now = time.monotonic()
        with self._lock:
            waiting = [(key, row) for key, row in self._missing.items() if self._is_due(key, now)]
        for key, row in waiting:
            failure: Exception | None = None
            try:
                registry.fetch(self.settings, row, partial(self._tell, row))
            except Exception as error:  # of this version only
                failure = error
            with self._lock:
                if failure is not None:
                    self._failed(key, failure)
                self._serve([one.kept for one in self.current.values()])

    def close(self) -> None:
        """Does not wait for a refresh that hangs: the process ends, and its connection with it."""
        if self._lock.acquire(timeout=1.0):
            self._drop_ledger()
            self._lock.release()

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
        row = self._ledger.newest_published()
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
        held, lacked = dict(self._versions), self._missing.keys()
        self._versions, self._missing = {}, {}
        self.current = {one.spec.name: self._servable(one, held) for one in kept}
        self._failures = {key: failure for key, failure in self._failures.items() if key in self._missing}
        if self._missing.keys() - lacked:
            self.lacks.set()
        for key in held.keys() - self._versions.keys():
            held[key].close()

    def _servable(self, kept: Kept, held: Mapping[Key, Version]) -> Servable:
        loaded: dict[int, Version] = {}
        refused: dict[int, str] = {}
        wanted = [number for number in (kept.champion, kept.previous, *kept.challengers[-2:]) if number is not None]
        for number in dict.fromkeys(wanted):
            if (row := kept.versions.get(number)) is None:
                refused[number] = "The ledger has no row of it; train again."
                continue
            key = (kept.spec.name, number, registry.whole(row))
            if (found := held.get(key) or self._loaded(key, row)) is not None:
                loaded[number] = self._versions[key] = found
            else:
                self._missing[key] = row
                failure = self._failures.get(key)
                refused[number] = failure.said if failure else "Its files are not in the cache yet; they are fetched."
        challengers = tuple(loaded[number] for number in kept.challengers if number in loaded)
        return Servable(
            kept=kept,
            champion=loaded.get(kept.champion) if kept.champion is not None else None,
            previous=loaded.get(kept.previous) if kept.previous is not None else None,
            challenger=challengers[-1] if challengers else None,
            challengers=challengers,
            refused=refused,
            plan=(plan := lookup.plan(kept.spec)),
            keys=frozenset((plan.entity, *plan.other_keys)),
            kinds={name: kind for one in reversed(loaded.values()) for name, kind in one.kinds.items()},
        )

    def _loaded(self, key: Key, row: Mapping[str, Any]) -> Version | None:
        """The version from the cache; None where that does not hold it, or where it was tried a moment ago."""
        if not self._is_due(key, time.monotonic()):
            return None
        try:
            scorer = registry.local(self.settings, row, partial(self._tell, row))
            if scorer is None:
                return None
            version = Version(scorer)
            version.warm()
        except Exception as error:  # whatever is wrong with a version's files, another tier answers
            self._failed(key, error)
            return None
        return version

    def _is_due(self, key: Key, now: float) -> bool:
        return (failure := self._failures.get(key)) is None or failure.again_at <= now

    def _failed(self, key: Key, error: Exception) -> None:
        before = self._failures.get(key)
        times = before.times + 1 if before else 0
        pause = min(PAUSE_S * 2.0 ** min(times, 16), LONGEST_PAUSE_S)
        self._failures[key] = Failure(str(error), times, time.monotonic() + pause)
        if before is None or before.said != str(error):
            log.warning("%s version %s is not served: %s", *key[:2], error)

    def _tell(self, row: Mapping[str, Any], detail: dict[str, Any]) -> None:
        """Put down in the ledger that files were refused: once, by whichever process is first."""
        if (ledger := self._ledger) is None:
            return  # it is tried again, and told then
        try:
            if all(one["detail"] != detail for one in ledger.events(row["model"], "corrupt_artifact")):
                ledger.add_event("corrupt_artifact", row["model"], row["night"], detail)
        except Exception as error:  # what is said of a file must not depend on whether it can be told
            log.warning("the ledger is not told that %s version %s is refused: %s", row["model"], row["version"], error)

    def _keep_all(self) -> str | None:
        """Write down what is in service, where that has changed. Returns what could not be written: it is served all
        the same, and tried again with the next look."""
        failed: dict[str, str] = {}
        for name, one in self.current.items():
            try:
                self._keep(one.kept)
            except OSError as error:
                failed[name] = error.strerror or str(error)
        for path in self.folder.glob("*.json"):
            if path.stem not in self.current:  # its folder under models/ is gone, and so is the model
                path.unlink(missing_ok=True)
        self._is_kept = not failed
        told = ", ".join(f"{name} ({why})" for name, why in failed.items())
        return f"A restart would not know what is in service: {self.folder} does not take {told}." if failed else None

    def _keep(self, kept: Kept) -> None:
        path, text = self.folder / f"{kept.spec.name}.json", kept.to_json()
        with suppress(OSError, ValueError):
            if path.read_text(encoding="utf-8") == text:
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")


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
