"""Who may ask the service, how fast, and how much a day.

A key is 256 random bits, and only its SHA-256 is stored (`serve_keys`); a slow hash is for passwords that can be
guessed, and a key cannot. What a caller presents is hashed and compared with every key there is, in constant time each,
so that the time of a refusal says nothing about how near it was.

Two limits stand beside the keys, both in rows, because rows are what a model is copied with (Tramèr et al., Stealing
Machine Learning Models via Prediction APIs, USENIX Security 2016): a token bucket per name for the pace, and a budget
per name and UTC day. The paper's third defence is answering with fewer digits: `rounded`.

A key may be bound to models, and asks for no others. Wrong keys are slowed by the address that they come from.

`check` reads and writes memory only; that of the day's budget is shared with all workers of the host (`budget`).
"""

import hashlib
import hmac
import ipaddress
import logging
import math
import re
import secrets
from collections import OrderedDict
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tiltyard.errors import BadInput
from tiltyard.records import Record
from tiltyard.serve.budget import Busy, HostCount
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

DEFAULT_BUDGET = 200
"""Rows of one key a UTC day where the settings do not say (see decision 47)."""
DEFAULT_DECIMALS = 3
"""Digits of a score where the settings do not say and keys are asked for."""
WRONG_AT_ONCE = 20
"""Wrong keys that an address may present at once before it is slowed."""
WRONG_S = 1.0
"""Seconds after which it may present one more, and for which the refusal of one that came sooner is kept back."""
WRONG_ADDRESSES = 4_096
"""Addresses whose wrong keys are remembered: the newest."""

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
    models: frozenset[str] | None = None
    """Models that the key may ask for; None for all of them."""
    is_operator: bool = True
    """Whether it may see how the service stands: hosts, roles, models, figures."""

    def may_ask(self, model: str) -> bool:
        """Whether it may ask for a model, in service or not."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Refused:
    """A caller who may not ask, or not now."""

    status: int
    """HTTP status. 401: no key, or none of ours. 429: too fast, or the day's budget is spent. 503: not just now."""
    sentence: str
    """What to do."""
    retry_after_s: int | None = None
    """Seconds after which to ask again; None where that would not help."""


@dataclass(slots=True)
class Count:
    """What one name has used."""

    tokens: float
    """Rows that may come at once; below 0 after a request larger than the burst."""
    at: float
    """When there were so many, epoch seconds."""
    used: DayRows = (0, 0)
    """Rows that all workers let pass, those before a restart among them."""


def take(count: Count, rows: int, now: float, limits: Limits) -> Refused | None:
    """Let `rows` pass and count them, or say why not and count nothing. A request is admitted whole or not at all.

    A request larger than the burst passes when the bucket is full and leaves it in debt, so that no request is too
    large for ever and the pace holds in the long run. A clock that is set back adds no tokens. `now`: epoch seconds.
    """
    day = int(now // DAY)
    day, used = count.used if count.used[0] in (day, day + 1) else (day, 0)
    if limits.budget is not None and used + rows > limits.budget:
        return over(limits.budget, used, rows, now)
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
    count.used = (day, used + rows)
    return None


def over(budget: int, used: int, rows: int, now: float) -> Refused:
    """What is said when `rows` more than the `used` ones are beyond a day's budget. `now`: epoch seconds."""
    return Refused(
        429,
        f"This key's budget of {budget:,} rows a day leaves {max(0, budget - used):,}, and {rows:,} were asked for; "
        "ask for fewer, or again after midnight UTC.",
        math.ceil((now // DAY + 1) * DAY - now),
    )


class WrongKeys:
    """How often each address has presented a wrong key of late: a bucket per address that WRONG_AT_ONCE fill, and that
    loses one every WRONG_S. Of more than WRONG_ADDRESSES the one that was quiet longest is forgotten."""

    def __init__(self) -> None:
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address → (how full its bucket is, as of when)."""

    def is_too_fast(self, address: str, now: float) -> bool:
        """Count a wrong key from an address at `now` (seconds of any clock); whether it came too soon."""
        filled, at = self._filled.pop(address, (0.0, now))
        filled = max(0.0, filled - max(0.0, now - at) / WRONG_S)
        is_too_fast = filled + 1 > WRONG_AT_ONCE
        self._filled[address] = (filled if is_too_fast else filled + 1, now)
        if len(self._filled) > WRONG_ADDRESSES:
            self._filled.popitem(last=False)
        return is_too_fast


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
        operators: tuple[str, ...] = (),
        unlimited: tuple[str, ...] = (),
        now: float = 0.0,
    ) -> None:
        """`folder` is where the day's counts lie (None: in memory only), `operators` the names of keys that may see how
        the service stands, `unlimited` of those without a budget, `now` the time in epoch seconds. Raises BadInput for
        malformed keys, and for a name without one.
        """
        self.limits = limits or Limits()
        self.wrong_keys = WrongKeys()
        self._keys = [(Admitted(key.name, key.models, key.name in operators), key.digest) for key in parse(keys)]
        for setting, named in (("TILTYARD_SERVE_OPERATORS", operators), ("TILTYARD_SERVE_TRUSTED", unlimited)):
            if lacking := sorted(set(named) - set(self.names)) if self._keys else []:
                raise BadInput(
                    f"{setting} names {lacking[0]}, of whom TILTYARD_SERVE_KEYS has no key; the names "
                    f"there are {', '.join(self.names)}."
                )
        self._unlimited = frozenset(unlimited)
        names = self.names or (EVERYBODY,)
        full = math.inf  # a bucket begins full, and `take` cuts it to the burst
        self._counts = {name: Count(tokens=full, at=now) for name in names}
        self._of_host: HostCount | None = None
        if folder and self.limits.budget is not None:
            try:
                self._of_host = HostCount(folder, names)
            except OSError as error:  # a full disk must not stop the service, whose own count still holds
                log.warning("the day's budgets cannot be kept in %s, and each worker counts alone: %s", folder, error)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keys; empty where no key is asked for."""
        return tuple(sorted({caller.name for caller, _ in self._keys if caller.name}))

    def who(self, presented: bytes | None) -> Admitted | Refused:
        """Whose key this is; asked before the body is read. Takes the same time whichever key it is near."""
        if not self._keys:
            return Admitted(None)
        if not presented:
            return Refused(401, "Send your API key in the header X-API-Key.")
        digest = hashlib.sha256(presented).digest()
        owner = None
        for caller, digest_of_key in self._keys:
            if hmac.compare_digest(digest, digest_of_key):
                owner = caller  # the other keys are compared all the same, so that the time does not say which it was
        if owner is None:
            return Refused(401, "This API key is not known here; ask who runs the service for one.")
        return owner

    def limits_of(self, name: str | None) -> Limits:
        """What a name may ask for."""
        return replace(self.limits, budget=None) if name in self._unlimited else self.limits

    def take(self, name: str | None, rows: int, now: float) -> Refused | None:
        """Let `rows` of `name` pass at `now` (epoch seconds), or say why not."""
        name = name or EVERYBODY
        count, limits = self._counts[name], self.limits_of(name)
        if self._of_host is None or limits.budget is None:
            return take(count, rows, now, limits)
        try:
            with self._of_host:
                count.used = self._of_host.read(name, int(now // DAY))
                refused = take(count, rows, now, limits)
                if refused is None:
                    self._of_host.write(name, count.used)
                return refused
        except Busy:
            return Refused(503, "The day's budget cannot be counted just now; ask again.", 1)

    def give_back(self, name: str | None, rows: int) -> None:
        """Rows that passed here and were refused elsewhere."""
        name = name or EVERYBODY
        count = self._counts[name]
        with suppress(Busy), self._of_host or nullcontext():
            day, used = self._of_host.read(name, count.used[0]) if self._of_host else count.used
            count.used = (day, max(0, used - rows))
            if self._of_host:
                self._of_host.write(name, count.used)

    def check(self, presented: bytes | None, rows: int, now: float) -> Admitted | Refused:
        """`who`, then `take`."""
        caller = self.who(presented)
        if isinstance(caller, Refused):
            return caller
        return self.take(caller.name, rows, now) or caller

    def close(self) -> None:
        """Let go of the file of the counts, which are in it."""
        if self._of_host:
            self._of_host.close()
            self._of_host = None


def access(settings: Settings, now: float) -> Access:
    """Keys and limits by the settings. Raises BadInput with a sentence for a setting that cannot be meant."""
    for name, value in (
        ("serve_rate", settings.serve_rate),
        ("serve_burst", settings.serve_burst),
        ("serve_budget", settings.serve_budget),
    ):
        if value is not None and not (math.isfinite(value) and (value > 0 or (name, value) == ("serve_budget", 0))):
            raise BadInput(
                f"TILTYARD_{name.upper()} is {value:g}; give a number above 0, or "
                f"{'0 for no limit' if name == 'serve_budget' else 'leave it out for no limit'}."
            )
    if settings.serve_burst is not None and settings.serve_rate is None:
        raise BadInput("TILTYARD_SERVE_BURST says nothing without TILTYARD_SERVE_RATE; set that, too.")
    if settings.serve_decimals is not None and not 0 <= settings.serve_decimals <= 15:
        raise BadInput(f"TILTYARD_SERVE_DECIMALS is {settings.serve_decimals}; give 0 to 15, or leave it out.")
    keys = settings.serve_keys.get_secret_value() if settings.serve_keys else None
    limits = Limits(settings.serve_rate, settings.serve_burst, budget(settings))
    return Access(
        keys,
        limits=limits,
        folder=settings.home / "serving",
        operators=settings.serve_operators,
        unlimited=settings.serve_trusted,
        now=now,
    )


def budget(settings: Settings) -> int | None:
    """Rows a day that one name may ask for who is not trusted; None for no limit. Where keys are asked for there is one
    by default."""
    if settings.serve_budget is None:
        return DEFAULT_BUDGET if settings.serve_keys else None
    return settings.serve_budget or None


def decimals(settings: Settings) -> int | None:
    """Digits of an answered score; None for all of them. Where keys are asked for it is rounded by default."""
    if settings.serve_decimals is None:
        return DEFAULT_DECIMALS if settings.serve_keys else None
    return settings.serve_decimals


def explains(settings: Settings) -> bool:
    """Whether explanations are given, and the pages that describe the service."""
    return is_loopback(settings.serve_host) if settings.serve_explain is None else settings.serve_explain


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


@dataclass(frozen=True, slots=True)
class Key:
    """What the service knows of a key."""

    name: str
    """Name of its user."""
    digest: bytes
    """SHA-256 of the key."""
    models: frozenset[str] | None = None
    """Models that it may ask for; None for all."""


def parse(keys: str | None) -> tuple[Key, ...]:
    """`name:sha256,name:sha256:model,model` as keys. A name may stand twice, while its key is being changed.

    What has no colon is one more model of the key before it. Raises BadInput; its sentence names the entry's place and
    name, never its digest.
    """
    parts: list[list[str]] = []
    for part in (keys or "").split(","):
        if ":" not in part and parts and len(parts[-1]) > 2:
            parts[-1].append(part.strip())
        elif part.strip():
            parts.append([piece.strip() for piece in part.strip().split(":", 2)])
    known: list[Key] = []
    for place, (name, *rest) in enumerate(parts, 1):
        if not NAME.fullmatch(name):
            raise BadInput(
                f"Entry {place} of TILTYARD_SERVE_KEYS has no usable name (lower-case letters, digits and _.-, 64 at "
                "most); make one with tiltyard keys new NAME."
            )
        if not rest or not re.fullmatch(r"[0-9a-fA-F]{64}", rest[0]):
            raise BadInput(
                f"The key '{name}' in TILTYARD_SERVE_KEYS is not followed by a SHA-256 (64 hexadecimal digits); make "
                f"one with tiltyard keys new {name}."
            )
        models = rest[1:]
        if not all(re.fullmatch(r"[a-z][a-z0-9_]*", model) for model in models):
            raise BadInput(
                f"The key '{name}' in TILTYARD_SERVE_KEYS is bound to what is no model's name; write "
                f"{name}:SHA256:model,model, or {name}:SHA256 for all models."
            )
        known.append(Key(name, bytes.fromhex(rest[0]), frozenset(models) or None))
    digests = [key.digest for key in known]
    for key in known:
        if digests.count(key.digest) > 1:
            raise BadInput(f"The key '{key.name}' is in TILTYARD_SERVE_KEYS twice; give every entry a key of its own.")
    if keys and keys.strip() and not known:
        raise BadInput("TILTYARD_SERVE_KEYS holds no key; give name:sha256 entries, or leave it out.")
    return tuple(known)


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
