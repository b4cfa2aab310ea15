"""Who may ask the service, how fast, and how much a day.

A key is 256 random bits, and only its SHA-256 is stored (`serve_keys`); a slow hash is for passwords that can be
guessed, and a key cannot. What a caller presents is hashed and compared with every key there is, in constant time each,
so that the time of a refusal says nothing about how near it was.

Two limits stand beside the keys, both in rows, because rows are what a model is copied with (Tramèr et al., Stealing
Machine Learning Models via Prediction APIs, USENIX Security 2016): a token bucket per name for the pace, and a budget
per name and UTC day. The paper's third defence is answering with fewer digits: `rounded`.

`check` reads and writes memory only. A thread carries the day's count to home/serving/budget.json once a second, where
all workers share it: what a killed process had not carried yet, a second's rows, is forgotten.
"""

import fcntl
import hashlib
import hmac
import ipaddress
import json
import logging
import math
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiltyard.errors import BadInput
from tiltyard.files import whole
from tiltyard.records import Record
from tiltyard.settings import Settings

log = logging.getLogger(__name__)

DAY = 86_400
"""Seconds of a day."""
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
"""Names that a key may have."""
PREFIX = "ty_"
"""Beginning of every key, by which a scanner for leaked secrets knows one."""
EVERYBODY = "everybody"
"""Name under which all callers share the limits where no keys are asked for."""
BURST_S = 2.0
"""Seconds whose rows a caller may save up where the settings do not say."""

DayRows = tuple[int, int]
"""(days since 1970, UTC; rows on that day)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one name may ask for."""

    rate: float | None = None
    """Rows a second in the long run; None for no limit."""
    burst: float | None = None
    """Rows that may come at once after a rest; None for those of BURST_S seconds."""
    budget: int | None = None
    """Rows a UTC day; None for no limit."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller who may ask."""

    name: str | None
    """Name of the key; None where no key is asked for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A caller who may not ask, or not now."""

    status: int
    """HTTP status. 401: no key, or none of ours. 429: too fast, or the day's budget is spent."""
    sentence: str
    """What to do."""
    retry_after_s: int | None = None
    """Seconds after which to ask again; None where that would not help."""


@dataclass(slots=True)
class Count:
    """What one name has used. The carrying thread writes `elsewhere` alone, the thread that answers all the rest."""

    tokens: float
    """Rows that may come at once; below 0 after a request larger than the burst."""
    at: float
    """When there were so many, epoch seconds."""
    here: DayRows = (0, 0)
    """Rows that this process let pass."""
    elsewhere: DayRows = (0, 0)
    """Rows that other workers, and those before a restart, let pass, as of the last look."""


def take(count: Count, rows: int, now: float, limits: Limits) -> Refused | None:
    """Let `rows` pass and count them, or say why not and count nothing. A request is admitted whole or not at all.

    A request larger than the burst passes when the bucket is full and leaves it in debt, so that no request is too
    large for ever and the pace holds in the long run. A clock that is set back adds no tokens. `now`: epoch seconds.
    """
    day = int(now // DAY)
    here = count.here[1] if count.here[0] == day else 0
    used = here + (count.elsewhere[1] if count.elsewhere[0] == day else 0)
    if limits.budget is not None and used + rows > limits.budget:
        left = max(0, limits.budget - used)
        return Refused(
            429,
            f"This key's budget of {limits.budget:,} rows a day leaves {left:,}, and {rows:,} were asked for; "
            "ask for fewer, or again after midnight UTC.",
            math.ceil((day + 1) * DAY - now),
        )
    if limits.rate is not None:
        burst = limits.rate * BURST_S if limits.burst is None else limits.burst
        tokens = min(burst, count.tokens + max(0.0, now - count.at) * limits.rate)
        count.at = now
        count.tokens = tokens
        needs = min(float(rows), burst)
        if tokens < needs:
            wait = max(1, math.ceil((needs - tokens) / limits.rate))
            return Refused(
                429,
                f"This key may ask for {limits.rate:g} rows a second; ask again in {wait} s, or for fewer rows.",
                wait,
            )
        count.tokens = tokens - rows
    count.here = (day, here + rows)
    return None


def rounded(score: float, decimals: int | None) -> float:
    """The score as it is answered; the request log keeps all its digits. `decimals` None: all of them."""
    return score if decimals is None else round(score, decimals)


class Access:
    """Keys and limits of one serving process. `check` is for one thread (the event loop) and takes a few µs."""

    def __init__(
        self,
        keys: str | None,
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
        now: float = 0.0,
    ) -> None:
        """`folder` is where the day's counts are stored (None: in memory only), `now` the time in epoch seconds.

        Raises BadInput for malformed keys.
        """
        self.limits = limits or Limits()
        self._keys = parse(keys)
        names = sorted({name for name, _ in self._keys}) or [EVERYBODY]
        full = math.inf  # a bucket begins full, and `take` cuts it to the burst
        self._counts = {name: Count(tokens=full, at=now) for name in names}
        self._budget = _Budget(folder, self._counts) if folder and self.limits.budget is not None else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keys; empty where no key is asked for."""
        return tuple(sorted({name for name, _ in self._keys}))

    def who(self, presented: bytes | None) -> Admitted | Refused:
        """Whose key this is; asked before the body is read. Takes the same time whichever key it is near."""
        if not self._keys:
            return Admitted(None)
        if not presented:
            return Refused(401, "Send your API key in the header X-API-Key.")
        digest = hashlib.sha256(presented).digest()
        owner = None
        for name, digest_of_key in self._keys:
            if hmac.compare_digest(digest, digest_of_key):
                owner = name  # the other keys are compared all the same, so that the time does not say which it was
        if owner is None:
            return Refused(401, "This API key is not known here; ask who runs the service for one.")
        return Admitted(owner)

    def take(self, name: str | None, rows: int, now: float) -> Refused | None:
        """Let `rows` of `name` pass at `now` (epoch seconds), or say why not."""
        return take(self._counts[name or EVERYBODY], rows, now, self.limits)

    def check(self, presented: bytes | None, rows: int, now: float) -> Admitted | Refused:
        """`who`, then `take`."""
        caller = self.who(presented)
        if isinstance(caller, Refused):
            return caller
        return self.take(caller.name, rows, now) or caller

    def start(self) -> None:
        """Carry the day's counts to disk from now on, once a second, in a thread."""
        if self._budget:
            self._budget.start()

    def close(self) -> None:
        """Carry the rest, and end the thread."""
        if self._budget:
            self._budget.close()


def access(settings: Settings, now: float) -> Access:
    """Keys and limits by the settings. Raises BadInput with a sentence for a setting that cannot be meant."""
    for name, value in (
        ("serve_rate", settings.serve_rate),
        ("serve_burst", settings.serve_burst),
        ("serve_budget", settings.serve_budget),
    ):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise BadInput(
                f"TILTYARD_{name.upper()} is {value:g}; give a number above 0, or leave it out for no limit."
            )
    if settings.serve_burst is not None and settings.serve_rate is None:
        raise BadInput("TILTYARD_SERVE_BURST says nothing without TILTYARD_SERVE_RATE; set that, too.")
    if settings.serve_decimals is not None and not 0 <= settings.serve_decimals <= 15:
        raise BadInput(f"TILTYARD_SERVE_DECIMALS is {settings.serve_decimals}; give 0 to 15, or leave it out.")
    keys = settings.serve_keys.get_secret_value() if settings.serve_keys else None
    limits = Limits(settings.serve_rate, settings.serve_burst, settings.serve_budget)
    return Access(keys, limits=limits, folder=settings.home / "serving", now=now)


def refuse_open(host: str, keys: str | None) -> None:
    """Raises BadInput when the service would listen beyond this machine with no key asked for."""
    if not is_loopback(host) and not parse(keys):
        raise BadInput(
            f"Listening on {host or 'every address'} without API keys would let anybody ask; make one with "
            "tiltyard keys new NAME and set TILTYARD_SERVE_KEYS, or listen on 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host. A name other than localhost may resolve to anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def parse(keys: str | None) -> tuple[tuple[str, bytes], ...]:
    """`name:sha256,name:sha256` as (name, digest) pairs. A name may stand twice, while its key is being changed.

    Raises BadInput; its sentence names the entry's place and name, never its digest.
    """
    pairs: list[tuple[str, bytes]] = []
    for place, entry in enumerate((keys or "").split(","), 1):
        if not entry.strip():
            continue
        name, _, digest = entry.strip().partition(":")
        if not NAME.fullmatch(name):
            raise BadInput(
                f"Entry {place} of TILTYARD_SERVE_KEYS has no usable name (lower-case letters, digits and _.-, 64 at "
                "most); make one with tiltyard keys new NAME."
            )
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise BadInput(
                f"The key '{name}' in TILTYARD_SERVE_KEYS is not followed by a SHA-256 (64 hexadecimal digits); make "
                f"one with tiltyard keys new {name}."
            )
        pairs.append((name, bytes.fromhex(digest)))
    digests = [digest for _, digest in pairs]
    for name, own_digest in pairs:
        if digests.count(own_digest) > 1:
            raise BadInput(f"The key '{name}' is in TILTYARD_SERVE_KEYS twice; give every entry a key of its own.")
    if keys and keys.strip() and not pairs:
        raise BadInput("TILTYARD_SERVE_KEYS holds no key; give name:sha256 entries, or leave it out.")
    return tuple(pairs)


@dataclass(frozen=True, kw_only=True)
class NewKey(Record):
    """An API key that was just made."""

    name: str
    """Name of its user, for limits and log."""
    key: str
    """The key, which its user sends in the header X-API-Key."""
    entry: str
    """What the service is given in TILTYARD_SERVE_KEYS: the name and the key's SHA-256."""

    def text(self) -> str:
        """The same for a person to read."""
        return (
            f"The key, shown this once; its user sends it in the header X-API-Key:\n\n    {self.key}\n\n"
            f"What the service is told, in TILTYARD_SERVE_KEYS (entries are separated by commas):\n\n    {self.entry}"
        )


def new(name: str) -> NewKey:
    """A fresh key. It is stored nowhere. Raises BadInput for a name that cannot be one."""
    if not NAME.fullmatch(name):
        raise BadInput(
            f"'{name}' cannot name a key; take lower-case letters, digits and _.-, beginning with one of the first two."
        )
    key = PREFIX + secrets.token_urlsafe(32)
    return NewKey(name=name, key=key, entry=f"{name}:{hashlib.sha256(key.encode()).hexdigest()}")


@dataclass
class _Budget:
    """The day's counts of all workers in one small file: each adds what it has let pass, and reads the sum."""

    folder: Path
    """Where the file lies."""
    counts: Mapping[str, Count]
    """Name → what it has used."""
    _carried: dict[str, DayRows] = field(default_factory=dict)
    """Name → rows of this process that are in the file."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _has_warned: bool = False

    def __post_init__(self) -> None:
        # Without the lock, since the file is replaced whole; a worker that hangs must not keep others from starting.
        for name, used in self._read().items():
            if name in self.counts:
                self.counts[name].elsewhere = used

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="budget", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            last = self._stop.wait(1.0)
            try:
                self.carry()
                self._has_warned = False
            except OSError as error:  # a full disk must not stop the service, whose own count still holds
                if not self._has_warned:
                    log.warning("the day's budgets cannot be kept in %s: %s", self.folder, error)
                self._has_warned = True
            if last:
                return

    def carry(self) -> None:
        """Add to the file what this process let pass since the last time, and read what other processes did."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "budget.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            totals = self._read()
            for name, count in self.counts.items():
                day, used = count.here  # read at once, since the thread that answers may begin a new day meanwhile
                day_in_file, total = totals.get(name, (day, 0))
                if day_in_file == day + 1:  # another worker's clock has passed midnight already: this day is over
                    continue
                carried = self._carried.get(name, (day, 0))
                more = used - carried[1] if carried[0] == day else used
                totals[name] = (day, more + (total if day_in_file == day else 0))
                self._carried[name] = (day, used)
                count.elsewhere = (day, totals[name][1] - used)
            with whole(self.folder / "budget.json") as part:
                part.write_text(json.dumps({name: list(pair) for name, pair in sorted(totals.items())}))

    def _read(self) -> dict[str, DayRows]:
        """Name → rows of all processes."""
        try:
            content = json.loads((self.folder / "budget.json").read_bytes())
            return {str(name): (int(day), int(used)) for name, (day, used) in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("the day's budgets in %s cannot be read and begin again: %s", self.folder, error)
            return {}
