"""What is in service, ready to answer: per model its roster, and its versions in memory.

The ledger decides who is in service. What it said last lies in home/serving/models/<model>.json (a `Roster`), and the
versions' files lie in home/cache, so that the service starts and goes on without ledger, registry, lake or S3: it keeps
what it had until it hears otherwise. A model is exchanged whole, after its new versions have been warmed.

Starting and exchanging read this machine's disk alone. What is not in the cache is brought there by `fetch` beside
everything else, and is put in service when it has come; a version that cannot be had is tried again, with longer and
longer pauses.
"""

import hashlib
import hmac
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltyard import postgres, release
from tiltyard.errors import BadInput, Unavailable
from tiltyard.files import whole
from tiltyard.ledger import Ledger
from tiltyard.online import lookup
from tiltyard.online.store import Value
from tiltyard.records import FeaturesSummary, JsonObject, Version, VersionFacts
from tiltyard.serve import additive
from tiltyard.serve.breaker import Breaker
from tiltyard.serve.lane import Lane
from tiltyard.serve.shadowing import Shadow
from tiltyard.settings import Settings
from tiltyard.spec import Spec, load_all
from tiltyard.train import registry
from tiltyard.train.encoding import LARGEST, Encoding
from tiltyard.train.scorer import Scorer

log = logging.getLogger(__name__)

WARM = (1, 1, 1, 16)
"""Number of rows of each call that warms a version before it takes traffic."""
NAN = float("nan")
PAUSE_S = 5.0
"""Seconds for which a version that cannot be loaded is left alone; they double with every failure."""
LONGEST_PAUSE_S = 300.0
"""Seconds up to which that pause grows."""
CHALLENGERS = 2
"""Number of challengers that are loaded: the newest."""
Key = tuple[str, int, str]
"""(model, version, one digest of all its files)."""


@dataclass(frozen=True)
class Roster:
    """Who serves one model, as the ledger said when it was asked last: all that is needed to serve it."""

    spec: Spec
    """The model's spec, as it was then."""
    champion: int | None
    """The champion's number; None without one."""
    previous: int | None
    """The number of the champion before it; None without one."""
    challengers: tuple[int, ...]
    """The challengers' numbers, the newest last."""
    versions: Mapping[int, Version]
    """Number → the ledger's entry of the version, of which its digests and where its files lie are stored here."""
    snapshot: int | None
    """The lake's snapshot in service then; None before the first."""
    popular: tuple[JsonObject, ...] = ()
    """The most popular items, which come with a safe default; empty where the model declares none."""

    def to_json(self, key: str | None = None) -> str:
        """The text of the model's file, with a digest of all of it, or with a `key` its HMAC."""
        body = {
            "spec": self.spec.model_dump(mode="json", by_alias=True),
            "champion": self.champion,
            "previous": self.previous,
            "challengers": list(self.challengers),
            "versions": {
                str(number): {
                    "model": entry.model,
                    "version": entry.version,
                    "night": str(entry.night),
                    "digests": entry.digests,
                    "facts": {"artifacts": entry.facts.artifacts},
                }
                for number, entry in sorted(self.versions.items())
            },
            "snapshot": self.snapshot,
            "popular": [dict(item) for item in self.popular],
        }
        text = json.dumps(body, sort_keys=True)
        return json.dumps({_seal_name(key): _seal(text, key), "kept": body}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, key: str | None = None) -> "Roster":
        """What `to_json` has written. Raises ValueError for what is not whole, and, with a `key`, for what nobody has
        sealed who has it."""
        try:
            content = json.loads(text)
            body = content["kept"]
            if key is not None and _seal_name(key) not in content:
                raise ValueError("nobody has sealed it with TILTYARD_SERVE_SEAL")
            if not hmac.compare_digest(_seal(json.dumps(body, sort_keys=True), key), str(content[_seal_name(key)])):
                raise ValueError("its digest is another one")
            versions = {
                int(number): Version(
                    model=entry["model"],
                    version=entry["version"],
                    night=date.fromisoformat(entry["night"]),
                    inputs="",
                    run_id="",
                    digests=entry["digests"],
                    facts=VersionFacts(artifacts=entry["facts"]["artifacts"]),
                    requested_by="",
                )
                for number, entry in body["versions"].items()
            }
            return cls(
                Spec(**body["spec"]),
                body["champion"],
                body["previous"],
                tuple(body["challengers"]),
                versions,
                body["snapshot"],
                tuple(body["popular"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}") from None


def _seal_name(key: str | None) -> str:
    return "sha256" if key is None else "hmac-sha256"


def _seal(text: str, key: str | None) -> str:
    """A digest, which finds damage; or with a key one that nobody can write who does not have that."""
    if key is None:
        return hashlib.sha256(text.encode()).hexdigest()
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


class LoadedVersion:
    """One version in memory: encodes rows, scores them, and remembers how it has been doing."""

    def __init__(self, scorer: Scorer) -> None:
        self.number = scorer.version
        """The version's number."""
        self.scorer = scorer
        self.breaker = Breaker()
        self.lane: Lane | None = None
        """Where it races deadlines. Made by the service with the first job; closed by it when `is_closed` already."""
        self.shadow: Shadow | None = None
        """Where it scores as a challenger. Made and closed in the same way."""
        self.is_closed = False
        """Whether it has left service."""
        self.late_at = 0.0
        """When its breaker was last told that it was late, time.monotonic(); 0 before."""
        self.kinds = {column.name: column.kind for column in scorer.encoding.columns}
        """Feature → numeric, boolean or categorical."""
        self.features = frozenset(self.kinds)
        """The features that it scores."""
        self._codes = _codes(scorer.encoding)
        self._light = self._read_light()

    def matrix(self, rows: list[Mapping[str, Value]]) -> NDArray[np.float32]:
        """(rows, features) float32, exactly as Encoding.transform has it; what a row lacks is NaN.

        Raises TypeError for text where this version was trained with a number, or the other way round: callers and
        the store give values of the kind that the version in service was trained with, and this one may differ.
        """
        return np.array([self._encoded(row) for row in rows], dtype=np.float32)

    def _encoded(self, row: Mapping[str, Value]) -> list[float]:
        encoded: list[float] = []
        for name, codes, code_of_others in self._codes:
            value: Any = row.get(name)
            if value is None:
                encoded.append(NAN)
            elif codes is None:
                encoded.append(value if -LARGEST <= value <= LARGEST else NAN)
            elif isinstance(value, str):
                encoded.append(codes.get(value, code_of_others))
            else:
                raise TypeError(f"{name} is text in version {self.number}, and {value!r} is none")
        return encoded

    def light(self, rows: NDArray[np.float32]) -> Sequence[Any]:
        """The light twin's score of each encoded row. Takes microseconds where the twin is a sum over its columns."""
        if self._light is not None:
            return self._light.score(rows)
        return list(self.scorer.score_light_matrix(rows))

    def _read_light(self) -> additive.Additive | None:
        try:
            sample = self.scorer.encoding.transform(self.scorer.reference_frame())
            return additive.read(self.scorer.score_light_matrix, self.scorer.encoding, sample, self.scorer.target)
        except Exception as error:  # ONNX Runtime scores the twin then, more slowly
            log.warning("the light twin of %s version %s is not read off: %s", self.scorer.model, self.number, error)
            return None

    def close(self) -> None:
        """Leave service; may be called from any thread. Its threads end, and with them it leaves the memory."""
        self.is_closed = True  # set first, since who makes a lane meanwhile looks at it and closes the lane
        for worker in (self.lane, self.shadow):
            if worker is not None:
                worker.close()

    def warm(self) -> None:
        """Score rows of which nothing is known, so that allocations and lazy parts are done before anybody waits."""
        for rows in WARM:
            matrix = np.full((rows, len(self._codes)), np.nan, dtype=np.float32)
            self.scorer.score_matrix(matrix)
            self.scorer.score_light_matrix(matrix)


def _codes(encoding: Encoding) -> list[tuple[str, dict[str, float] | None, float]]:
    """Per column its name, the code of each category (None: a number stays as it is), and the code of all others."""
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

    roster: Roster
    """What the ledger said."""
    champion: LoadedVersion | None
    """The champion; None without one, or while it is not loaded."""
    previous: LoadedVersion | None
    """The previous champion; None without one, or while it is not loaded."""
    challenger: LoadedVersion | None
    """The newest challenger, which may have a share of the traffic; None without one."""
    challengers: tuple[LoadedVersion, ...]
    """The challengers that are loaded, the newest last."""
    unloaded: Mapping[int, str]
    """Version with a role that is not loaded → why."""
    plan: lookup.LookupPlan
    """How features are looked up."""
    keys: frozenset[str]
    """Key columns of the entity and of the feature views: what a caller may name."""
    kinds: Mapping[str, str]
    """Feature → kind: what a caller may give. Of several versions the one that answers first says which kind."""

    @property
    def spec(self) -> Spec:
        """The model's spec."""
        return self.roster.spec


@dataclass(frozen=True)
class Failure:
    """Why a version is not loaded, and when it is tried again."""

    reason: str
    """What was raised, as a sentence."""
    times: int
    """How often it failed before."""
    again_at: float
    """When it is tried again, time.monotonic()."""


class Servables:
    """The models in service, by name: `current` is replaced whole, and may be read from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Mapping[str, Servable] = {}
        """Model → what is in service of it."""
        self.heard_at: float | None = None
        """When the ledger was heard last, time.time(); None: not since the start."""
        self.trouble: str | None = None
        """Why the ledger was not heard the last time, or what could not be written down; None when all went well."""
        self.lacks = threading.Event()
        """Set when there is a version to fetch."""
        self._versions: dict[Key, LoadedVersion] = {}
        """The versions in memory."""
        self._missing: dict[Key, Version] = {}
        """Version with a role that is not loaded → the ledger's entry of it."""
        self._failures: dict[Key, Failure] = {}
        """Version with a role that could not be loaded → why, and when it is tried again."""
        self._is_stored = True
        """Whether what is in service is written down on this machine."""
        self._tide: str | None = None
        """What the ledger and the specs were at when they were read last; None before."""
        self._specs_read: tuple[tuple[tuple[Path, int], ...], list[Spec]] | None = None
        """((file, when it was changed) …, the specs that these files held); None before the first look."""
        self.erasures = 0
        """Number of erasures that the ledger had when it was read last: what is remembered of answers is forgotten with
        each."""
        self._ledger: Ledger | None = None
        """Open connection; None while there is none."""
        self._lock = threading.Lock()

    @property
    def _key(self) -> str | None:
        return self.settings.serve_seal.get_secret_value() if self.settings.serve_seal else None

    @property
    def folder(self) -> Path:
        """Where the rosters are written down."""
        return self.settings.home / "serving" / "models"

    def restore(self) -> int:
        """Put in service what is written down here, with what the cache holds. Returns the number of models.

        A damaged file is logged and left out.
        """
        rosters = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                rosters.append(Roster.from_json(path.read_text(encoding="utf-8"), self._key))
            except (ValueError, OSError) as error:
                log.warning("%s is not used: %s", path, error)
        with self._lock:
            self._serve(rosters)
        return len(rosters)

    def refresh(self) -> bool:
        """Ask the ledger who is in service. Returns whether anything changed.

        Never raises: when the ledger is away, what is in service goes on.
        """
        with self._lock:
            try:
                rosters = self._ask()
                self.heard_at = time.time()
                if rosters is not None:
                    self._serve(rosters)
                    self._is_stored = False
                self.trouble = None if self._is_stored else self._store_all()
            except Exception as error:  # whatever is down, the service is not
                self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._drop_ledger()
                return False
            return rosters is not None

    def fetch(self) -> None:
        """Bring what is missing into the cache, one version at a time, while the service goes on.

        Each version is put in service when it has come.
        """
        now = time.monotonic()
        with self._lock:
            due = [(key, entry) for key, entry in self._missing.items() if self._is_due(key, now)]
        for key, entry in due:
            failure: Exception | None = None
            try:
                registry.fetch(self.settings, entry, partial(self._tell, entry))
            except Exception as error:  # whatever is wrong with one version, the next one is fetched
                failure = error
            with self._lock:
                if failure is not None:
                    self._failed(key, failure)
                self._serve([servable.roster for servable in self.current.values()])

    def close(self) -> None:
        """Close the connection, without waiting for a refresh that hangs: it ends with the process."""
        if self._lock.acquire(timeout=1.0):
            self._drop_ledger()
            self._lock.release()

    def _ask(self) -> list[Roster] | None:
        """The models' rosters; None when nothing has changed since the last time."""
        if not postgres.is_running(self.settings):
            raise Unavailable("PostgreSQL does not run.")
        if self._ledger is None:
            self._ledger = Ledger(self.settings)
        specs = self._specs()
        tide = self._ledger.tide() + "".join(spec.digest for spec in specs)
        if tide == self._tide:
            return None
        published = {
            source: self._ledger.newest_published(source) for source in sorted({spec.source for spec in specs})
        }
        summaries = {source: run.summary if run else None for source, run in published.items()}
        touched = self._ledger.touched_successions()
        rosters = [
            self._untouched(spec, why) if (why := touched.get(spec.name) or touched.get(""))
            else _roster(self._ledger, spec, summaries[spec.source])
            for spec in specs
        ]  # fmt: skip
        self.erasures = self._ledger.erasures.begun()
        self._tide = tide
        return rosters

    def _untouched(self, spec: Spec, why: str) -> Roster:
        """Who serves a model of which the ledger says what was never put down: whoever was in service before it did;
        where nobody was, its safe default."""
        before = self.current.get(spec.name)
        stays = "who was in service stays" if before else "its safe default answers"
        log.error("What the ledger says of %s is not what was put down, so that %s: %s.", spec.name, stays, why)
        if before:
            return before.roster
        nobody: dict[int, Version] = {}
        return Roster(
            spec=spec, champion=None, previous=None, challengers=(), versions=nobody, snapshot=None, popular=()
        )

    def _specs(self) -> list[Spec]:
        """The specs as they are now, read again when a file has changed. While one is wrong, those in service stay."""
        models = release.in_force(self.settings).models
        files = sorted(models.glob("*/spec.yaml"))
        stamps = tuple((path, path.stat().st_mtime_ns) for path in files)
        if self._specs_read is None or self._specs_read[0] != stamps:
            try:
                specs = [spec for spec in load_all(models) if spec.source in self.settings.sources]
            except BadInput as error:
                if not self.current:
                    raise
                log.warning("The specs in service stay: %s", error)
                specs = [servable.spec for servable in self.current.values()]
            self._specs_read = (stamps, specs)
        return self._specs_read[1]

    def _drop_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger, self._tide = None, None

    def _serve(self, rosters: list[Roster]) -> None:
        """Put these models in service, and take every other one out of it."""
        before, missing_before = dict(self._versions), self._missing.keys()
        self._versions, self._missing = {}, {}
        self.current = {roster.spec.name: self._servable(roster, before) for roster in rosters}
        self._failures = {key: failure for key, failure in self._failures.items() if key in self._missing}
        if self._missing.keys() - missing_before:
            self.lacks.set()
        for key in before.keys() - self._versions.keys():
            before[key].close()

    def _servable(self, roster: Roster, before: Mapping[Key, LoadedVersion]) -> Servable:
        """The model with its versions, from those that were in memory `before`, else from the cache."""
        loaded: dict[int, LoadedVersion] = {}
        unloaded: dict[int, str] = {}
        roles = (roster.champion, roster.previous, *roster.challengers[-CHALLENGERS:])
        for number in dict.fromkeys(number for number in roles if number is not None):
            if (entry := roster.versions.get(number)) is None:
                unloaded[number] = "The ledger has no row of it; train again."
                continue
            key = (roster.spec.name, number, registry.digest_of_all(entry))
            if (version := before.get(key) or self._load(key, entry)) is not None:
                self._versions[key] = version
                if unlike := roster.spec.target.unlike(version.scorer.target):
                    unloaded[number] = f"It {unlike}."
                else:
                    loaded[number] = version
            else:
                self._missing[key] = entry
                failure = self._failures.get(key)
                unloaded[number] = (
                    failure.reason if failure else "Its files are not in the cache yet; they are fetched."
                )
        challengers = tuple(loaded[number] for number in roster.challengers if number in loaded)
        return Servable(
            roster=roster,
            champion=loaded.get(roster.champion) if roster.champion is not None else None,
            previous=loaded.get(roster.previous) if roster.previous is not None else None,
            challenger=challengers[-1] if challengers else None,
            challengers=challengers,
            unloaded=unloaded,
            plan=(plan := lookup.plan(roster.spec)),
            keys=frozenset((plan.entity, *plan.other_keys)),
            kinds={name: kind for version in reversed(loaded.values()) for name, kind in version.kinds.items()},
        )

    def _load(self, key: Key, entry: Version) -> LoadedVersion | None:
        """The version from the cache; None where its files are not there whole, or failed a moment ago."""
        if not self._is_due(key, time.monotonic()):
            return None
        try:
            scorer = registry.local(self.settings, entry, partial(self._tell, entry))
            if scorer is None:
                return None
            version = LoadedVersion(scorer)
            version.warm()
        except Exception as error:  # whatever is wrong with a version's files, another tier answers
            self._failed(key, error)
            return None
        return version

    def _is_due(self, key: Key, now: float) -> bool:
        return (failure := self._failures.get(key)) is None or failure.again_at <= now

    def _failed(self, key: Key, error: Exception) -> None:
        """Leave a version alone for a while, and log why."""
        before = self._failures.get(key)
        times = before.times + 1 if before else 0
        pause = min(PAUSE_S * 2.0 ** min(times, 16), LONGEST_PAUSE_S)
        self._failures[key] = Failure(str(error), times, time.monotonic() + pause)
        if before is None or before.reason != str(error):
            log.warning("%s version %s is not served: %s", *key[:2], error)

    def _tell(self, entry: Version, detail: JsonObject) -> None:
        """Note in the ledger that files were refused: once, by whichever process is first."""
        if (ledger := self._ledger) is None:
            return  # the version is tried again, and the ledger told then
        try:
            if all(event.detail != detail for event in ledger.events(entry.model, "corrupt_artifact")):
                ledger.add_event("corrupt_artifact", entry.model, entry.night, detail)
        except Exception as error:  # the version is refused whether or not the ledger can be told
            log.warning("the ledger is not told that %s version %s is refused: %s", entry.model, entry.version, error)

    def _store_all(self) -> str | None:
        """Write down what is in service, where that has changed. Returns what could not be written, as a sentence.

        What could not be written is served all the same, and written at the next look.
        """
        failures: dict[str, str] = {}
        for name, servable in self.current.items():
            try:
                self._store(servable.roster)
            except OSError as error:
                failures[name] = error.strerror or str(error)
        for path in self.folder.glob("*.json"):
            if path.stem not in self.current:  # its folder under models/ is gone, and so is the model
                path.unlink(missing_ok=True)
        self._is_stored = not failures
        if not failures:
            return None
        models = ", ".join(f"{name} ({why})" for name, why in failures.items())
        return f"A restart would not know what is in service: {self.folder} does not take {models}."

    def _store(self, roster: Roster) -> None:
        path, text = self.folder / f"{roster.spec.name}.json", roster.to_json(self._key)
        with suppress(OSError, ValueError):
            if path.read_text(encoding="utf-8") == text:
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")


def _roster(ledger: Ledger, spec: Spec, published: FeaturesSummary | None) -> Roster:
    roles = ledger.roles(spec.name, date.max)
    holders = {roles.champion, roles.previous, *roles.challengers}
    return Roster(
        spec=ledger.bounded(spec),
        champion=roles.champion,
        previous=roles.previous,
        challengers=roles.challengers,
        versions={entry.version: entry for entry in ledger.versions(spec.name) if entry.version in holders},
        snapshot=published.snapshot if published else None,
        popular=tuple(item.to_json() for item in published.popular.get(spec.name, ())) if published else (),
    )
