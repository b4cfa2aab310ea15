"""A subscription business, simulated: customers, log-ins, payments, cancellations. Seeded; same seed, same bytes.

How it lives, week by week, all customers at once:

- Customers sign up (plan, country, channel) and log in at a rate of their own. Some lose interest: their
  log-ins fall to a sixth, and few come back. Payments are attempted every 30 days and sometimes fail.
- The weekly hazard of cancelling is logistic in lost interest, unpaid failures (fading), plan, channel and
  tenure. Lost interest itself is never delivered; a model has to see it in the log-ins. `truth()` tells it.
  Gradient boosting on counts of log-ins and failures ranks the next 14 days' cancellations with an AUC of about .75.
- Every row carries when it happened and when it was written. Phones that were offline deliver log-ins days
  late and out of order; some failed payments are collected later and countries corrected, each by a row more.
  A cancellation becomes known up to `label_delay` after it took effect.
- Nothing is delivered before `start`: the first day's files bring the eight weeks before it, too.

Columns and their meaning: dbt/models/staging/subscription/_subscription__sources.yml.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.files import whole

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

SECOND = 1_000_000
DAY = 86_400 * SECOND
WEEK = 7 * DAY
HISTORY_WEEKS = 8
"""Lived before `start`, so that the first night has something to look back on."""
LIFETIME_DAYS = 168.0
"""About how long a customer stays; sets how many there are at once."""
NONE = np.iinfo(np.int64).min
"""No such time: numpy's NaT, so that it becomes NULL."""

PLANS = np.array(["basic", "standard", "premium"])
PRICES = np.array([9.0, 19.0, 39.0])
COUNTRIES = np.array(["AT", "DE", "FR", "IT", "NL", "PL"])
CHANNELS = np.array(["ads", "organic", "partner", "referral"])
REASONS = np.array(["other", "payment", "price", "usage"])
DEVICES = np.array(["web", "phone"])
LEVELS = {"plan": PLANS, "country": COUNTRIES, "channel": CHANNELS, "reason": REASONS, "device": DEVICES}
"""What the codes in these columns stand for; -1 is missing."""

DriftKind = Literal["none", "sudden", "gradual", "prevalence", "mix", "unit_change", "missingness"]


@dataclass(frozen=True)
class Drift:
    """What changes, and from when. Before `start` every row is what it would be without drift."""

    kind: DriftKind = "none"
    """none; sudden: what makes customers cancel changes (interest counts less, payments more, premium goes first);
    gradual: the same over eight weeks; prevalence: everybody cancels more; mix: new customers come by ads;
    unit_change: amounts arrive in cents; missingness: countries and last log-ins go missing."""
    start: date = date(2025, 4, 1)
    strength: float = 1.0
    """0 is none, 1 is plain to see."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(DriftKind):
            raise BadInput(f"There is no drift '{self.kind}'; the kinds are: {', '.join(get_args(DriftKind))}.")


@dataclass(frozen=True)
class Simulator:
    """The business, described. Nothing is computed before the first `tables()`, `truth()` or `land()`."""

    seed: int = 20250101
    customers: int = 3_000
    """All that ever sign up; of the default's 3,000 about 1,250 are active at once."""
    start: date = date(2025, 1, 1)
    """The day of the first delivery."""
    days: int = 181
    """Days of deliveries: the default ends on 30 June 2025."""
    logins_per_week: float = 4.0
    """Mean of an interested customer."""
    late_share: float = 0.03
    """Share of log-ins that are written late: a day in the median, ten at most."""
    label_delay: timedelta = timedelta(days=7)
    """The longest a cancellation takes to become known; the mean is two days."""
    drift: Drift = field(default_factory=Drift)
    cancel_trigger: bool = False
    """A trap for leakage detection. At a cancellation, a database trigger blanks `last_login_at` in the customer's
    newest CRM row, in place: the rewritten row is delivered that day, but its changed_at is that of the row it
    overwrites and its written_at one second later, long before the cancellation. The columns promise it was known
    then; only the deliveries tell."""

    def __post_init__(self) -> None:
        if self.customers < 1 or self.days < 1:
            raise BadInput("A simulation needs at least one customer and one day.")
        if not 0 <= self.late_share <= 1 or self.logins_per_week < 0 or self.label_delay < timedelta():
            raise BadInput("late_share lies between 0 and 1; logins_per_week and label_delay are not negative.")

    @property
    def digest(self) -> str:
        """SHA-256 of the description and of this code: same digest, same deliveries."""
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps([asdict(self), code], sort_keys=True, default=str).encode()).hexdigest()

    def tables(self) -> dict[str, pd.DataFrame]:
        """customer, login, payment, cancellation: all that is delivered until the end, in order of delivery."""
        return {name: _frame(columns) for name, columns in self._lived.tables.items()}

    def truth(self) -> pd.DataFrame:
        """One row per customer and week lived through: customer_id, week_start, hazard (the true chance to cancel in
        this week), is_interested, cancelled_at (NaT unless in this week)."""
        weeks = self._lived.weeks
        frame = pd.DataFrame({name: weeks[name] for name in ("customer_id", "hazard", "is_interested")})
        frame.insert(1, "week_start", _utc(weeks["week_start"]))
        return frame.assign(cancelled_at=_utc(weeks["cancelled_at"]))

    def land(self, folder: Path, progress: Callable[[str, float | None], None] | None = None) -> dict[str, int]:
        """Write `folder`/<table>/YYYY-MM-DD.parquet, one file per table and day of delivery.

        A file appears whole, by rename. Returns {"files", "rows"}.
        """
        import pyarrow.parquet as pq

        files = rows = 0
        first = _micros(self.start)
        for done, (name, columns) in enumerate(self._lived.tables.items()):
            if progress:
                progress(f"simulated data: {name}", done / len(self._lived.tables))
            (folder / name).mkdir(parents=True, exist_ok=True)
            table = _arrow(columns)
            day = (columns["delivered_at"] - first) // DAY
            edges = np.searchsorted(day, np.arange(self.days + 1))
            for number, (begin, end) in enumerate(pairwise(edges.tolist())):
                target = folder / name / f"{self.start + timedelta(days=number)}.parquet"
                with whole(target) as part:
                    pq.write_table(table.slice(begin, end - begin), part)
                files += 1
            rows += int(edges[-1])
        if progress:
            progress("simulated data: written", 1.0)
        return {"files": files, "rows": rows}

    @cached_property
    def _lived(self) -> "_Life":
        return _live(self)


@dataclass(frozen=True)
class _Life:
    tables: dict[str, Columns]
    """In order of delivery, times in microseconds, without what is written after the end."""
    weeks: Columns


class _Log:
    """Rows of one table, collected block by block."""

    def __init__(self) -> None:
        self.blocks: list[Columns] = []

    def add(self, **columns: npt.NDArray[Any]) -> None:
        self.blocks.append(columns)

    def columns(self) -> Columns:
        """Once: the blocks are given up column by column, since a large table is not wanted twice in memory."""
        return {name: np.concatenate([block.pop(name) for block in self.blocks]) for name in list(self.blocks[0])}

    def delivered(self, first: int, end: int) -> Columns:
        """The rows delivered before `end`, in their order; what is older than `first` comes at `first`."""
        columns = self.columns()
        delivered = np.maximum(columns.get("delivered_at", columns["written_at"]), first)
        order = np.lexsort((columns["written_at"], delivered))
        order = order[: np.searchsorted(delivered, end, sorter=order)]
        for name in columns:
            columns[name] = columns[name][order]
        return {**columns, "delivered_at": delivered[order]}


def _live(sim: Simulator) -> _Life:
    """Live through every week. Draws come in the order of the weeks, so that a drift changes nothing before it."""
    rng = np.random.default_rng(sim.seed)
    holes = np.random.default_rng([sim.seed, 1])  # of its own: missingness changes nothing else
    origin = _micros(sim.start) - HISTORY_WEEKS * WEEK
    end = _micros(sim.start) + sim.days * DAY
    span_days = (end - origin) / DAY
    total = sim.customers
    drift_from = _micros(sim.drift.start)
    strength = sim.drift.strength

    # Who there is, and what never changes. The first are there already, the others arrive evenly.
    present = round(total / (1 + span_days / LIFETIME_DAYS))
    signed_up = np.empty(total, dtype=np.int64)
    ages = np.minimum(rng.exponential(LIFETIME_DAYS, present), 1_000.0)
    signed_up[:present] = origin - np.sort((ages * DAY).astype(np.int64))[::-1] - 1
    signed_up[present:] = origin + np.sort(rng.random(total - present) * span_days * DAY).astype(np.int64)
    ids = np.arange(1, total + 1)
    plan = np.searchsorted([0.5, 0.85], rng.random(total)).astype(np.int8)
    country = np.searchsorted([0.1, 0.5, 0.65, 0.78, 0.9], rng.random(total)).astype(np.int8)
    draw = rng.random(total)
    channel = np.searchsorted([0.3, 0.7, 0.85], draw).astype(np.int8)
    moved = (signed_up >= drift_from) & (rng.random(total) < 0.8 * strength)
    if sim.drift.kind == "mix":
        channel[moved] = 0
    shown_country = np.where(rng.random(total) < 0.02, (country + 1) % len(COUNTRIES), country).astype(np.int8)
    rate = rng.gamma(6.0, sim.logins_per_week / 6.0, total) * np.array([0.9, 1.0, 1.3])[plan]
    fails = rng.beta(0.5, 4.5, total)  # a bad card stays a bad card

    lost = rng.random(total) < 0.1
    lost[present:] = False
    unpaid = np.zeros(total)
    last_login = np.full(total, NONE)
    changed, written = signed_up.copy(), signed_up + (rng.exponential(20.0, total) * SECOND).astype(np.int64)
    shown_login = last_login.copy()
    cancelled = np.full(total, NONE)
    logs = {name: _Log() for name in ("customer", "login", "payment", "cancellation")}
    weeks = _Log()
    login_ids, payment_ids = _counter(), _counter()

    def write(who: Ints, changed_at: Ints, written_at: Ints, seen: Ints, delivered_at: Ints | None = None) -> None:
        """The CRM writes customers down as it sees them now."""
        of_country, of_login = shown_country[who].copy(), seen.copy()
        if sim.drift.kind == "missingness":
            late = written_at >= drift_from
            of_country[late & (holes.random(len(who)) < 0.7 * strength)] = -1
            of_login[late & (holes.random(len(who)) < 0.5 * strength)] = NONE
        changed[who], written[who], shown_login[who] = changed_at, written_at, seen
        logs["customer"].add(
            customer_id=ids[who],
            plan=plan[who],
            country=of_country,
            channel=channel[who],
            price_eur=PRICES[plan[who]],
            signed_up_at=signed_up[who],
            last_login_at=of_login,
            changed_at=changed_at,
            written_at=written_at,
            delivered_at=written_at if delivered_at is None else delivered_at,
        )

    everyone = np.flatnonzero(signed_up < origin)
    write(everyone, signed_up[everyone], written[everyone], last_login[everyone])
    active = everyone
    next_new = len(everyone)
    for week in range(origin, end, WEEK):
        # The weekly writing of all who are there, and new ones.
        synced = week + (rng.random(len(active)) * 6 * 3600 * SECOND).astype(np.int64)
        write(active, np.full(len(active), week), synced, last_login[active])
        until = int(np.searchsorted(signed_up, week + WEEK))
        new = np.arange(next_new, until)
        next_new = until
        write(new, signed_up[new], written[new], last_login[new])
        active = np.concatenate([active, new])
        size = len(active)
        begins = np.maximum(signed_up[active], week)

        # Interest is lost, and seldom found again.
        tenure_days = (week + WEEK - signed_up[active]) / DAY
        turn = rng.random(size)
        losing = 0.035 + 0.02 * (channel[active] == 0)
        lost[active] = np.where(lost[active], turn >= 0.03, turn < losing)

        # Payments are due every 30 days from sign-up on.
        since = np.maximum(begins - signed_up[active] - 1, -1)
        due = signed_up[active] + (since // (30 * DAY) + 1) * 30 * DAY
        paying = np.flatnonzero(due < week + WEEK)
        who = active[paying]
        failed = rng.random(len(who)) < fails[who]
        collected = failed & (rng.random(len(who)) < 0.35)
        wait = (rng.uniform(1.0, 6.0, len(who)) * DAY).astype(np.int64)
        posted = due[paying] + (rng.uniform(0.2, 2.0, len(who)) * 3600 * SECOND).astype(np.int64)
        unpaid[active] *= 0.75
        unpaid[who] += failed & ~collected

        # Who cancels, and when in the week.
        new_way = _share(sim, week, drift_from)
        logit = (
            -5.6
            + 1.3 * new_way
            + (3.7 - 2.9 * new_way) * lost[active]
            + (2.0 + 0.8 * new_way) * np.minimum(unpaid[active], 2.0)
            + np.array([0.25, 0.0, -0.35])[plan[active]]
            + new_way * np.array([-0.8, 0.0, 2.0])[plan[active]]
            + 0.3 * (channel[active] == 0)
            + 0.7 * np.exp(-tenure_days / 45.0)
        )
        if sim.drift.kind == "prevalence" and week + WEEK > drift_from:
            logit += 1.1 * strength
        hazard = 1.0 / (1.0 + np.exp(-logit))
        cancels = rng.random(size) < hazard
        ends = np.where(cancels, begins + (rng.random(size) * (week + WEEK - begins)).astype(np.int64), week + WEEK)
        gone = active[cancels]
        cancelled[gone] = ends[cancels]
        weeks.add(
            customer_id=ids[active],
            week_start=np.full(size, week),
            hazard=hazard,
            is_interested=~lost[active],
            cancelled_at=cancelled[active],
        )

        # Payments that were attempted before the end of it, and what was collected later.
        attempted = due[paying] < ends[paying]
        amount = PRICES[plan[who]]
        if sim.drift.kind == "unit_change":
            amount = np.where(due[paying] >= drift_from, amount * 100.0, amount)
        numbers = payment_ids(len(who))
        for some, is_failed, when in ((attempted, failed, posted), (attempted & collected, ~collected, posted + wait)):
            logs["payment"].add(
                payment_id=numbers[some],
                customer_id=ids[who][some],
                amount_eur=amount[some],
                is_failed=is_failed[some],
                attempted_at=due[paying][some],
                written_at=when[some],
            )

        # Log-ins, in the time that each was a customer this week.
        counts = rng.poisson(rate[active] * np.where(lost[active], 0.15, 1.0) * (ends - begins) / WEEK)
        by = np.repeat(np.arange(size), counts)
        at = begins[by] + (rng.random(len(by)) * (ends - begins)[by]).astype(np.int64)
        phone = rng.random(len(by)) < 0.6
        lag = rng.exponential(20.0, len(by)) * SECOND
        late = np.flatnonzero(phone & (rng.random(len(by)) < sim.late_share / 0.6))
        lag[late] = np.minimum(rng.lognormal(0.0, 1.0, len(late)), 10.0) * DAY
        logs["login"].add(
            login_id=login_ids(len(by)),
            customer_id=ids[active][by],
            device=phone.astype(np.int8),
            logged_in_at=at,
            written_at=at + lag.astype(np.int64),
        )
        some = np.flatnonzero(counts)
        if len(some):
            starts = np.concatenate([[0], np.cumsum(counts[some])[:-1]])
            last_login[active[some]] = np.maximum.reduceat(at, starts)

        # Corrections of the country (of the row written last), and changes of plan.
        moment = begins + (rng.uniform(0.3, 0.9, size) * (week + WEEK - begins)).astype(np.int64)
        draw = rng.random(size)
        wrong = (shown_country[active] != country[active]) & (draw < 0.3) & (moment < ends)
        fixed = active[wrong]
        shown_country[fixed] = country[fixed]
        write(fixed, changed[fixed], moment[wrong], shown_login[fixed])
        switches = ~wrong & (draw > 0.995) & (moment < ends)
        switched = active[switches]
        plan[switched] = (plan[switched] + 1) % len(PLANS)
        write(switched, moment[switches], moment[switches] + 5 * SECOND, shown_login[switched])

        # Cancellations, known later; and the trigger.
        delay = np.minimum(rng.gamma(2.0, 1.0, len(gone)) * DAY, sim.label_delay / timedelta(microseconds=1))
        logs["cancellation"].add(
            customer_id=ids[gone],
            reason=np.where(
                rng.random(len(gone)) < 0.7,
                np.where(unpaid[gone] > 0.3, 1, np.where(lost[gone], 3, 2)),
                0,
            ).astype(np.int8),
            cancelled_at=cancelled[gone],
            written_at=cancelled[gone] + delay.astype(np.int64),
        )
        if sim.cancel_trigger:
            write(gone, changed[gone], written[gone] + SECOND, np.full(len(gone), NONE), cancelled[gone])
        active = active[~cancels]
    return _Life({name: log.delivered(_micros(sim.start), end) for name, log in logs.items()}, weeks.columns())


def _share(sim: Simulator, week: int, drift_from: int) -> float:
    """How much of the new way of cancelling holds in this week, 0 to `strength`."""
    if sim.drift.kind == "sudden":
        return sim.drift.strength if week + WEEK > drift_from else 0.0
    if sim.drift.kind == "gradual":
        return sim.drift.strength * min(max((week + WEEK - drift_from) / (8 * WEEK), 0.0), 1.0)
    return 0.0


def _counter() -> Callable[[int], Ints]:
    """Hands out the next n numbers, from 1."""
    last = 0

    def take(n: int) -> Ints:
        nonlocal last
        last += n
        return np.arange(last - n + 1, last + 1)

    return take


def _frame(columns: Columns) -> pd.DataFrame:
    series: dict[str, Any] = {}
    for name, values in columns.items():
        if name in LEVELS:
            series[name] = pd.Categorical.from_codes(values, list(LEVELS[name])).astype(object)
        elif name.endswith("_at"):
            series[name] = _utc(values)
        else:
            series[name] = values
    return pd.DataFrame(series).drop(columns="delivered_at")


def _arrow(columns: Columns) -> Any:
    """The same as a pyarrow Table, straight from the arrays."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        if name == "delivered_at":
            continue
        if name in LEVELS:
            codes = pa.array(values, mask=values < 0)
            arrays[name] = pa.DictionaryArray.from_arrays(codes, pa.array(LEVELS[name].tolist())).cast(pa.string())
        elif name.endswith("_at"):
            arrays[name] = pa.array(values, mask=values == NONE).cast(pa.timestamp("us", tz="UTC"))
        else:
            arrays[name] = pa.array(values)
    return pa.table(arrays)


def _utc(micros: Ints) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(micros.view("datetime64[us]")).tz_localize("UTC")


def _micros(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND
