"""The millisecond test: did these rows really contain these values at that moment?

Every prediction carries the lake snapshot that it was made from. Its features are read once more from that
snapshot, as of its own night, and beside them stands what is published today *as of the same night*.
Whatever differs was written later under dates that claim the contrary: no column of a table tells it, only the
lake's own history does. Late arrivals that are dated honestly never differ here; they are counted beside it, as
what a join on event time alone would have taken.

Of every feature: `absent_then` (no value then, one now), `blanked_since` (a value then, none now), `stale_then`
(another value now, from a newer row), `different_then` (another value now in the row of the same dates). Of the
spine: rows that were not there then, and rows that are gone since.

A change is critical when it tracks the label, however rare it is, or when more than `leakage.max_changed` of
the rows changed; a rarer one that does not is a warning. `decide` is pure, `replay_nights` touches the lake
(`comparison`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from statistics import NormalDist

from tiltyard import clock, suites
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput
from tiltyard.lake import At, qualified
from tiltyard.leak.suspicion import LeakVerdict, Severity, Suspicion
from tiltyard.rails import Rails
from tiltyard.records import Publication, ReplaySummary
from tiltyard.spec import Spec
from tiltyard.train.comparison import ReplayComparison, Tally
from tiltyard.train.history import LakeHistory
from tiltyard.train.proof import Example, examples
from tiltyard.train.reach import UncomparedRows, reachable

ALPHA = 0.01
"""Chance that any feature of a model is called tied to the label when none is."""
CONFIDENCE = 0.95
"""Of all of a model's intervals together."""

VERDICTS: Mapping[LeakVerdict, str] = {
    "pass": "Every value that was compared is the one that was there.",
    "warn": "Some of the past was written over, within the limit and not tied to the label.",
    "fail": "The past was written over. A model that learns from it learns what was not known.",
    "untestable": "What can be compared does not show that the past is as it was.",
}
"""Verdict → what it means, as a sentence."""


# -- deciding: pure -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureChange:
    """One feature, judged."""

    tally: Tally
    """What was counted of it."""
    severity: Severity | None
    """What the change means for training; None where nothing changed."""
    rate: float
    """Share of the rows that changed."""
    interval: tuple[float, float]
    """Wilson's interval of the rate, simultaneous over the features."""
    p_value: float | None
    """Fisher's p-value for a change that has nothing to do with the label, times the number of features that changed;
    None without labels to test with."""
    reason: str
    """Why it is judged so, as a sentence."""

    @property
    def kind(self) -> str:
        """In what way most rows changed."""
        return max(self.tally.kinds, key=lambda kind: self.tally.kinds[kind])


def decide(tallies: Sequence[Tally], max_changed: float) -> tuple[FeatureChange, ...]:
    """Which features may not be learned from: critical ones first, then by how many rows changed.

    Of a feature that never changed no test could say that its changes follow the label, so that it does not count
    among those that are corrected for (Tarone 1990, Biometrics 46:515-522).
    """
    tested = sum(tally.changed > 0 for tally in tallies)
    changes = [_judged(tally, max_changed, len(tallies), tested) for tally in tallies]
    order = {"critical": 0, "warning": 1, None: 2}
    return tuple(sorted(changes, key=lambda change: (order[change.severity], -change.rate)))


def verdict(changes: Sequence[FeatureChange], tested: int) -> LeakVerdict:
    """`tested`: rows made from a snapshot that held nothing of later nights. What changed convicts in any row."""
    severities = {change.severity for change in changes}
    if "critical" in severities:
        return "fail"
    if "warning" in severities:
        return "warn"
    return "pass" if tested else "untestable"


def wilson(count: int, rows: int, alpha: float) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927, JASA 22:209-212); (0, 1) without rows."""
    if rows == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(1 - alpha / 2) ** 2
    share, spread = count / rows, 1 + z2 / rows
    middle = (share + z2 / (2 * rows)) / spread
    half = math.sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows * rows))) / spread
    return max(0.0, middle - half), min(1.0, middle + half)


def association(positives: tuple[int, int], negatives: tuple[int, int]) -> float | None:
    """Fisher's exact test, two-sided, of changed or not against the label (Agresti, Categorical Data Analysis, 3.5).

    None when one class has no rows: then nothing can be tied to the label, or be shown not to be.
    """
    from scipy.stats import fisher_exact

    if not positives[1] or not negatives[1]:
        return None
    table = [[changed, rows - changed] for changed, rows in (positives, negatives)]
    return float(fisher_exact(table).pvalue)


def _judged(tally: Tally, max_changed: float, features: int, tested: int) -> FeatureChange:
    rate = tally.changed / tally.rows if tally.rows else 0.0
    interval = wilson(tally.changed, tally.rows, (1 - CONFIDENCE) / max(features, 1))
    if not tally.changed:
        return FeatureChange(tally, None, rate, interval, None, f"the same in all {tally.rows:,} rows")
    raw = association(tally.positives, tally.negatives)
    p_value = None if raw is None else min(1.0, raw * tested)
    ways = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in tally.kinds.items() if count)
    reason = f"{tally.changed:,} of {tally.rows:,} rows ({rate:.2%}) were written over or dated back since: {ways}"
    if p_value is None:
        reason += "; no matured label to hold it against"
    else:
        (hit, positive), (missed, negative) = tally.positives, tally.negatives
        reason += f"; {hit:,} of {positive:,} positives and {missed:,} of {negative:,} negatives, p = {p_value:.2g}"
    if p_value is not None and p_value < ALPHA:
        return FeatureChange(tally, "critical", rate, interval, p_value, f"{reason}: the change tells the label")
    if rate > max_changed:
        return FeatureChange(
            tally, "critical", rate, interval, p_value, f"{reason}: over the limit of {max_changed:.2%}"
        )
    return FeatureChange(tally, "warning", rate, interval, p_value, f"{reason}: within the limit of {max_changed:.2%}")


# -- what was found -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """A window of predictions, held against what the lake says today."""

    model: str
    """The model's name."""
    ranges: tuple[tuple[date, date], ...]
    """First and last night of each range."""
    snapshot: int
    """The lake's snapshot that they were held against."""
    limit: float
    """Largest share of a feature's rows that may have changed."""
    verdict: LeakVerdict
    """What it comes to."""
    rows: int
    """Number of predictions that were compared, one per entity and prediction time."""
    tested: int
    """Number of those that can acquit: they were made from a snapshot that held nothing of later nights."""
    nights: int
    """Number of nights that they were made on."""
    matured: int
    """Number of those whose label has matured."""
    late_rows: int
    """Number of rows that today's frame has and that night's could not: their spine row is dated later, honestly."""
    changes: tuple[FeatureChange, ...]
    """Every feature, judged, the worst first."""
    examples: Mapping[str, tuple[Example, ...]]
    """Feature → up to five rows."""
    untested: tuple[UncomparedRows, ...]
    """What could not be compared, and why."""

    @property
    def critical(self) -> tuple[FeatureChange, ...]:
        """What stops a training."""
        return tuple(change for change in self.changes if change.severity == "critical")

    @property
    def findings(self) -> tuple[Suspicion, ...]:
        """What changed, in the shape that everything about leakage has; the effect is the share of rows."""
        return tuple(
            Suspicion(
                feature=change.tally.feature,
                severity=change.severity,
                kind=change.kind,
                effect=change.rate,
                interval=change.interval,
                evidence=change.reason,
                examples=tuple(asdict(example) for example in self.examples.get(change.tally.feature, ())),
            )
            for change in self.changes
            if change.severity
        )

    def shown(self, change: FeatureChange) -> str:
        """A row that proves it, in words: then, now, and the commit between; "" when there is none."""
        example = next(iter(self.examples.get(change.tally.feature, ())), None)
        if example is None:
            return ""
        then, now = example.then, example.now
        words = (
            f"{example.entity} at {example.prediction_time:%Y-%m-%d %H:%M:%S} was {_shown(then.value)} in snapshot "
            f"{then.snapshot} and is {_shown(now.value)} in snapshot {now.snapshot}"
        )
        if example.commit is not None:
            words += f", written by {example.commit}"
        for origin in example.origins[:1]:
            words += f", from {origin.table} row {origin.row} of {origin.file}"
        return words

    @property
    def acquitting(self) -> str:
        """How many of the predictions can acquit, and what becomes of the others, without a full stop."""
        words = f"{self.tested:,} of them can acquit"
        if self.tested < self.rows:
            words += "; the others were made when the lake held deliveries of later nights, and only convict"
        return words

    @property
    def reason(self) -> str:
        """How many predictions were compared, how many of them can acquit, and what it comes to."""
        first, last = self.ranges[0][0], self.ranges[-1][1]
        what = f"{self.rows:,} predictions of {self.nights} nights ({first} to {last}) against snapshot {self.snapshot}"
        return f"{what}: {self.acquitting}. {VERDICTS[self.verdict]}"

    def summary(self) -> ReplaySummary:
        """What a stage keeps of it."""
        return ReplaySummary(
            verdict=self.verdict,
            rows=self.rows,
            tested=self.tested,
            critical=tuple(f"{change.tally.feature}: {change.reason}" for change in self.critical),
            untested=tuple(f"{gap.what}: {gap.why}" for gap in self.untested),
        )


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)


# -- running ------------------------------------------------------------------------------------------------


def windows(spec: Spec, as_of: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """The nights that are replayed before training at `as_of`, first and last of each range, both included.

    The newest ones, where a fault shows first, and the newest ones that have matured: only those can show whether a
    change tells the label, and they are what the model learns from.
    """
    every, window = clock.NIGHT, spec.leakage.replay_window
    matured = as_of - spec.label.lag
    if matured >= as_of - window:
        return ((matured - window + every, as_of),)
    return ((matured - window + every, matured), (as_of - window + every, as_of))


def replay_nights(
    rails: Rails,
    spec: Spec,
    ranges: Sequence[tuple[datetime, datetime]],
    as_of: datetime | None = None,
    at: At = None,
    limit: float | None = None,
) -> Replay:
    """Replay the predictions of the nights in `ranges` against the lake `at` a snapshot (default: what is in service).

    Labels count as matured at `as_of` (default: the newest published night). Nothing to compare is no error: the
    verdict is then "untestable", and says why. Raises BadInput for a range that ends before it begins, a limit that
    is no share, and a snapshot that the lake does not have.
    """
    limit = spec.leakage.max_changed if limit is None else limit
    if not 0 <= limit <= 1:
        raise BadInput(f"A limit of {limit} is no share of rows; give one between 0 and 1, like 0.05.")
    for first, last in ranges:
        if last < first:
            raise BadInput(
                f"The range ends ({last:%Y-%m-%d}) before it begins ({first:%Y-%m-%d}); swap --from and --to."
            )
    record = LakeHistory.of(rails, (spec.prediction.spine, *spec.prediction.features), spec.source)
    if at is None:
        at = rails.publication()
    snapshot = at.snapshot if isinstance(at, Publication) else at
    if snapshot not in record.commits:
        raise BadInput(f"The lake has no snapshot {snapshot} (any more); the newest is {max(record.commits)}.")
    as_of = as_of or max(_newest(rails), *(last for _, last in ranges))
    batches, untested = reachable(rails, spec, ranges, record, at)
    if not batches:
        nights = tuple((night_closing(first), night_closing(last)) for first, last in ranges)
        return Replay(
            spec.name, nights, snapshot, limit, "untestable", 0, 0, 0, 0, 0, (), {}, tuple(untested)
        )  # fmt: skip
    with suites.one_view(rails):  # one transaction, rolled back: the temporary tables go with it
        comparison = ReplayComparison(rails, spec, as_of, at, batches, record)
        untested += comparison.untested
        changes = decide(comparison.tallies(), limit)
        counts = comparison.counts()
        shown = examples(comparison, [change.tally for change in changes])
    return Replay(
        model=spec.name,
        ranges=tuple((night_closing(first), night_closing(last)) for first, last in ranges),
        snapshot=snapshot,
        limit=limit,
        verdict=verdict(changes, counts.tested),
        rows=counts.rows,
        tested=counts.tested,
        nights=counts.nights,
        matured=counts.matured,
        late_rows=counts.late_rows,
        changes=changes,
        examples=shown,
        untested=tuple(untested),
    )


def check(rails: Rails, spec: Spec, as_of: datetime, at: int | Publication, *, render: bool = True) -> Replay:
    """The replay before training, kept as check results when there was anything to compare."""
    from tiltyard.leak import rules, suite

    replay = replay_nights(rails, spec, windows(spec, as_of), as_of, at)
    findings = [
        rules.RuleResult(
            rule,
            qualified(change.tally.view),
            change.tally.feature,
            change.tally.rows,
            change.tally.changed if change.severity == severity else 0,
            change.reason,
        )
        for rule, severity in (("replay", "critical"), ("rewritten_history", "warning"))
        for change in replay.changes
    ]
    if findings:
        suite.report(rails, findings, as_of, subject=spec.name, suite_name="replay", render=render)
    return replay


def _newest(rails: Rails) -> datetime:
    done = sorted(rails.ledger.published_nights())
    return clock.midnight(max(done))
