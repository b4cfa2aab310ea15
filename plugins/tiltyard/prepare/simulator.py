"""A subscription business, simulated: customers, log-ins, payments, cancellations. Seeded; same seed, same bytes.

How it lives, week by week, all customers at once:

- Customers sign up (plan, country, channel) and log in at a rate of their own. Some lose interest: their
  log-ins fall to a sixth, and few come back. Payments are attempted every 30 days and sometimes fail.
- The weekly hazard of cancelling is logistic in lost interest, unpaid failures (fading), plan, channel and
  tenure. Lost interest itself is never delivered; a model has to see it in the log-ins. `truth()` says who has.
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
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.files import whole

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
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


class Landing(NamedTuple):
    """What was written to the landing zone."""

    files: int
    """Number of files."""
    rows: int
    """Number of rows in them."""


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

    def land(self, folder: Path, progress: Callable[[str, float | None], None] | None = None) -> Landing:
        """Write `folder`/<table>/YYYY-MM-DD.parquet, one file per table and day of delivery.
        A file appears whole, by rename.
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
        return Landing(files, rows)

    @cached_property
    def _lived(self) -> "_Life":
        return _Business(self).live()


@dataclass(frozen=True)
class _Life:
    """What was lived through."""

    tables: dict[str, Columns]
    """Table → its columns, in order of delivery, times in microseconds, without what is written after the end."""
    weeks: Columns
    """Columns of `Simulator.truth`, times in microseconds."""


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


@dataclass(frozen=True)
class _Span:
    """When the business is lived, in microseconds."""

    origin: int
    """The first week begins."""
    first: int
    """The first day of deliveries begins."""
    end: int
    """The last day of deliveries ends."""
    drift_from: int
    """The drift begins."""

    @classmethod
    def of(cls, sim: Simulator) -> "_Span":
        first = _micros(sim.start)
        return cls(first - HISTORY_WEEKS * WEEK, first, first + sim.days * DAY, _micros(sim.drift.start))

    @property
    def days(self) -> float:
        return (self.end - self.origin) / DAY


class _Customers:
    """Everybody who ever signs up, by number: what never changes, and how it stands with them now.

    Those who are there at the beginning come first, in the order of their sign-ups; the others arrive evenly.
    """

    def __init__(self, sim: Simulator, span: _Span, rng: np.random.Generator) -> None:
        total = sim.customers
        present = round(total / (1 + span.days / LIFETIME_DAYS))
        self.ids = np.arange(1, total + 1)
        self.signed_up = np.empty(total, dtype=np.int64)
        ages = np.minimum(rng.exponential(LIFETIME_DAYS, present), 1_000.0)
        self.signed_up[:present] = span.origin - np.sort((ages * DAY).astype(np.int64))[::-1] - 1
        arrivals = (rng.random(total - present) * span.days * DAY).astype(np.int64)
        self.signed_up[present:] = span.origin + np.sort(arrivals)
        self.plan = np.searchsorted([0.5, 0.85], rng.random(total)).astype(np.int8)
        self.country = np.searchsorted([0.1, 0.5, 0.65, 0.78, 0.9], rng.random(total)).astype(np.int8)
        self.channel = np.searchsorted([0.3, 0.7, 0.85], rng.random(total)).astype(np.int8)
        moved = (self.signed_up >= span.drift_from) & (rng.random(total) < 0.8 * sim.drift.strength)
        if sim.drift.kind == "mix":
            self.channel[moved] = 0
        is_wrong = rng.random(total) < 0.02
        self.shown_country = np.where(is_wrong, (self.country + 1) % len(COUNTRIES), self.country).astype(np.int8)
        self.rate = rng.gamma(6.0, sim.logins_per_week / 6.0, total) * np.array([0.9, 1.0, 1.3])[self.plan]
        """Log-ins per week while interested."""
        self.fails = rng.beta(0.5, 4.5, total)
        """Chance of a payment to fail: a bad card stays a bad card."""
        self.lost = rng.random(total) < 0.1
        """Who has lost interest."""
        self.lost[present:] = False
        self.unpaid = np.zeros(total)
        """Payments that failed and were not collected, fading."""
        self.last_login = np.full(total, NONE)
        self.cancelled = np.full(total, NONE)
        self.changed = self.signed_up.copy()
        """changed_at of the newest CRM row, then its written_at and last_login_at."""
        self.written = self.signed_up + (rng.exponential(20.0, total) * SECOND).astype(np.int64)
        self.shown_login = self.last_login.copy()


@dataclass(frozen=True)
class _Week:
    """A week of those who are customers in it, in arrays of one entry per customer."""

    start: int
    """Its beginning, in microseconds."""
    active: Ints
    """Numbers of the customers."""
    begins: Ints
    """When each is a customer from, in microseconds: the week's beginning, or the sign-up."""

    @property
    def end(self) -> int:
        return self.start + WEEK


@dataclass(frozen=True)
class _Payments:
    """The payments that are due in a week, in arrays of one entry per payment."""

    of: Ints
    """Whose it is: the place in the week's arrays."""
    who: Ints
    """Whose it is: the customer's number."""
    due: Ints
    posted: Ints
    """When the attempt is written down."""
    wait: Ints
    """How long until a failed one is collected, in microseconds."""
    failed: Flags
    collected: Flags
    """Which of the failed are collected later."""


class _Business:
    """Lives through the weeks. Draws come in the order of the weeks, so that a drift changes nothing before it."""

    def __init__(self, sim: Simulator) -> None:
        self.sim, self.span = sim, _Span.of(sim)
        self.rng = np.random.default_rng(sim.seed)
        self.holes = np.random.default_rng([sim.seed, 1])  # of its own: missingness changes nothing else
        self.customers = _Customers(sim, self.span, self.rng)
        self.logs = {name: _Log() for name in ("customer", "login", "payment", "cancellation")}
        self.weeks = _Log()
        self.login_ids, self.payment_ids = _counter(), _counter()

    def live(self) -> _Life:
        customers = self.customers
        active = np.flatnonzero(customers.signed_up < self.span.origin)
        newest = len(active)
        self._write(active, customers.signed_up[active], customers.written[active], customers.last_login[active])
        for start in range(self.span.origin, self.span.end, WEEK):
            self._sync(active, start)
            until = int(np.searchsorted(customers.signed_up, start + WEEK))
            new = np.arange(newest, until)
            newest = until
            self._write(new, customers.signed_up[new], customers.written[new], customers.last_login[new])
            active = np.concatenate([active, new])
            active = active[~self._live_week(_Week(start, active, np.maximum(customers.signed_up[active], start)))]
        tables = {name: log.delivered(self.span.first, self.span.end) for name, log in self.logs.items()}
        return _Life(tables, self.weeks.columns())

    def _live_week(self, week: _Week) -> Flags:
        """One week. Gives who cancels in it."""
        self._lose_interest(week)
        payments = self._pay(week)
        cancels, ends = self._cancel(week)
        self._log_payments(payments, ends)
        self._log_in(week, ends)
        self._correct(week, ends)
        self._log_cancellations(week.active[cancels])
        return cancels

    def _sync(self, active: Ints, start: int) -> None:
        """The CRM's weekly writing of all who are there."""
        written = start + (self.rng.random(len(active)) * 6 * 3600 * SECOND).astype(np.int64)
        self._write(active, np.full(len(active), start), written, self.customers.last_login[active])

    def _write(
        self, who: Ints, changed_at: Ints, written_at: Ints, last_login_at: Ints, delivered_at: Ints | None = None
    ) -> None:
        """The CRM writes customers down as it sees them now."""
        customers, drift = self.customers, self.sim.drift
        country, shown_login = customers.shown_country[who].copy(), last_login_at.copy()
        if drift.kind == "missingness":
            is_late = written_at >= self.span.drift_from
            country[is_late & (self.holes.random(len(who)) < 0.7 * drift.strength)] = -1
            shown_login[is_late & (self.holes.random(len(who)) < 0.5 * drift.strength)] = NONE
        customers.changed[who], customers.written[who] = changed_at, written_at
        customers.shown_login[who] = last_login_at
        self.logs["customer"].add(
            customer_id=customers.ids[who],
            plan=customers.plan[who],
            country=country,
            channel=customers.channel[who],
            price_eur=PRICES[customers.plan[who]],
            signed_up_at=customers.signed_up[who],
            last_login_at=shown_login,
            changed_at=changed_at,
            written_at=written_at,
            delivered_at=written_at if delivered_at is None else delivered_at,
        )

    def _lose_interest(self, week: _Week) -> None:
        """Interest is lost, and seldom found again."""
        customers, active = self.customers, week.active
        turn = self.rng.random(len(active))
        losing = 0.035 + 0.02 * (customers.channel[active] == 0)
        customers.lost[active] = np.where(customers.lost[active], turn >= 0.03, turn < losing)

    def _pay(self, week: _Week) -> _Payments:
        """Payments are due every 30 days from sign-up on."""
        customers, rng = self.customers, self.rng
        signed_up = customers.signed_up[week.active]
        since = np.maximum(week.begins - signed_up - 1, -1)
        due = signed_up + (since // (30 * DAY) + 1) * 30 * DAY
        of = np.flatnonzero(due < week.end)
        who = week.active[of]
        failed = rng.random(len(who)) < customers.fails[who]
        collected = failed & (rng.random(len(who)) < 0.35)
        wait = (rng.uniform(1.0, 6.0, len(who)) * DAY).astype(np.int64)
        posted = due[of] + (rng.uniform(0.2, 2.0, len(who)) * 3600 * SECOND).astype(np.int64)
        customers.unpaid[week.active] *= 0.75
        customers.unpaid[who] += failed & ~collected
        return _Payments(of, who, due[of], posted, wait, failed, collected)

    def _cancel(self, week: _Week) -> tuple[Flags, Ints]:
        """Who cancels; and until when each is a customer in this week."""
        active, rng, customers = week.active, self.rng, self.customers
        hazard = 1.0 / (1.0 + np.exp(-self._logit(week)))
        cancels = rng.random(len(active)) < hazard
        moments = week.begins + (rng.random(len(active)) * (week.end - week.begins)).astype(np.int64)
        ends = np.where(cancels, moments, week.end)
        customers.cancelled[active[cancels]] = ends[cancels]
        self.weeks.add(
            customer_id=customers.ids[active],
            week_start=np.full(len(active), week.start),
            hazard=hazard,
            is_interested=~customers.lost[active],
            cancelled_at=customers.cancelled[active],
        )
        return cancels, ends

    def _logit(self, week: _Week) -> Floats:
        """The log-odds of cancelling in this week."""
        customers, active, drift = self.customers, week.active, self.sim.drift
        tenure_days = (week.end - customers.signed_up[active]) / DAY
        new_way = _share(self.sim, week.start, self.span.drift_from)
        logit: Floats = (
            -5.6
            + 1.3 * new_way
            + (3.7 - 2.9 * new_way) * customers.lost[active]
            + (2.0 + 0.8 * new_way) * np.minimum(customers.unpaid[active], 2.0)
            + np.array([0.25, 0.0, -0.35])[customers.plan[active]]
            + new_way * np.array([-0.8, 0.0, 2.0])[customers.plan[active]]
            + 0.3 * (customers.channel[active] == 0)
            + 0.7 * np.exp(-tenure_days / 45.0)
        )
        if drift.kind == "prevalence" and week.end > self.span.drift_from:
            logit += 1.1 * drift.strength
        return logit

    def _log_payments(self, payments: _Payments, ends: Ints) -> None:
        """Payments that were attempted before the customer left, and what was collected later."""
        customers, who, due = self.customers, payments.who, payments.due
        attempted = due < ends[payments.of]
        amount = PRICES[customers.plan[who]]
        if self.sim.drift.kind == "unit_change":
            amount = np.where(due >= self.span.drift_from, amount * 100.0, amount)
        numbers = self.payment_ids(len(who))
        first = (attempted, payments.failed, payments.posted)
        later = (attempted & payments.collected, ~payments.collected, payments.posted + payments.wait)
        for rows, is_failed, written_at in (first, later):
            self.logs["payment"].add(
                payment_id=numbers[rows],
                customer_id=customers.ids[who][rows],
                amount_eur=amount[rows],
                is_failed=is_failed[rows],
                attempted_at=due[rows],
                written_at=written_at[rows],
            )

    def _log_in(self, week: _Week, ends: Ints) -> None:
        """Log-ins, in the time that each was a customer this week."""
        customers, active, rng = self.customers, week.active, self.rng
        interest = np.where(customers.lost[active], 0.15, 1.0)
        counts = rng.poisson(customers.rate[active] * interest * (ends - week.begins) / WEEK)
        of = np.repeat(np.arange(len(active)), counts)
        at = week.begins[of] + (rng.random(len(of)) * (ends - week.begins)[of]).astype(np.int64)
        is_phone = rng.random(len(of)) < 0.6
        lag = rng.exponential(20.0, len(of)) * SECOND
        late = np.flatnonzero(is_phone & (rng.random(len(of)) < self.sim.late_share / 0.6))
        lag[late] = np.minimum(rng.lognormal(0.0, 1.0, len(late)), 10.0) * DAY
        self.logs["login"].add(
            login_id=self.login_ids(len(of)),
            customer_id=customers.ids[active][of],
            device=is_phone.astype(np.int8),
            logged_in_at=at,
            written_at=at + lag.astype(np.int64),
        )
        logged_in = np.flatnonzero(counts)
        if len(logged_in):
            firsts = np.concatenate([[0], np.cumsum(counts[logged_in])[:-1]])
            customers.last_login[active[logged_in]] = np.maximum.reduceat(at, firsts)

    def _correct(self, week: _Week, ends: Ints) -> None:
        """Corrections of the country (of the row written last), and changes of plan."""
        customers, active, rng = self.customers, week.active, self.rng
        moment = week.begins + (rng.uniform(0.3, 0.9, len(active)) * (week.end - week.begins)).astype(np.int64)
        draw = rng.random(len(active))
        is_wrong = customers.shown_country[active] != customers.country[active]
        corrects = is_wrong & (draw < 0.3) & (moment < ends)
        corrected = active[corrects]
        customers.shown_country[corrected] = customers.country[corrected]
        self._write(corrected, customers.changed[corrected], moment[corrects], customers.shown_login[corrected])
        switches = ~corrects & (draw > 0.995) & (moment < ends)
        switched = active[switches]
        customers.plan[switched] = (customers.plan[switched] + 1) % len(PLANS)
        moments = moment[switches]
        self._write(switched, moments, moments + 5 * SECOND, customers.shown_login[switched])

    def _log_cancellations(self, gone: Ints) -> None:
        """Cancellations, known later; and the trigger."""
        customers, rng = self.customers, self.rng
        longest = self.sim.label_delay / timedelta(microseconds=1)
        delay = np.minimum(rng.gamma(2.0, 1.0, len(gone)) * DAY, longest)
        likeliest = np.where(customers.unpaid[gone] > 0.3, 1, np.where(customers.lost[gone], 3, 2))
        cancelled = customers.cancelled[gone]
        self.logs["cancellation"].add(
            customer_id=customers.ids[gone],
            reason=np.where(rng.random(len(gone)) < 0.7, likeliest, 0).astype(np.int8),
            cancelled_at=cancelled,
            written_at=cancelled + delay.astype(np.int64),
        )
        if self.sim.cancel_trigger:
            blank = np.full(len(gone), NONE)
            self._write(gone, customers.changed[gone], customers.written[gone] + SECOND, blank, cancelled)


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
            codes: npt.NDArray[np.int8] = values
            series[name] = pd.Categorical.from_codes(codes, pd.Index(LEVELS[name].tolist())).astype(object)
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
