"""Has a model's world changed, and does the model feel it? The deciding half of drift. Pure, no files, no tables.

Three things are asked of the nights since training, and an alarm needs the first two (and Evidently's word on the raw
rows, where somebody can ask it):

1. *Evidence*: the model's e-detector has reached the threshold that the portfolio's budget of false alarms sets
   (detector.py says what that promises).
2. *Effect*: the distance of the window to the training nights, composed of the same weekdays, is over `min_effect`,
   and over what training's own windows show against the rest of training, in `least` of the last `of` windows; and
   it is a column with evidence of its own that shows it.
3. *Harm*: realized performance on the newest matured cohorts is worse than at training or than the safe default, or,
   while that truth is not in, the performance that the scores promise is.

An alarm stands from the night on which it is raised until the effect is gone or a retrain answers it; then the
detector starts from nought. One false alarm therefore costs one retrain at most.

A column that went missing, constant, or came in another unit is broken, not drifted: it is named as such, and that
night is no evidence of anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiltyard.govern import detector
from tiltyard.judge import estimate
from tiltyard.records import Broken, Harm, Signal
from tiltyard.spec import DriftPolicy
from tiltyard.target import YES_OR_NO, Default, Target
from tiltyard.train import evaluation, profile
from tiltyard.train.profile import LABEL, LOSS, Counts, Floats, Nights, ProfiledColumn, Reference
from tiltyard.words import strength

MIN_VALUES = 30
"""A column with fewer values in the window, or in the night, is not tested."""
MISSING_RISE = 0.2
"""The night's share of missing values exceeds that of training, and of its worst night, by so much: broken."""
SCALE = 5.0
"""All quartiles are beyond those of any training night by this factor, from one night to the next: another unit."""
ELSEWHERE = 0.75
"""So much of a night lies where training never was, from one night to the next: another unit, or another column."""
CHANCE = 1e-9
"""A column is constant when its night in one cell is less likely than this."""
STATISTIC = {True: "wasserstein", False: "jensenshannon"}
NOT_KEPT = "not kept with this version; train again"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Standing:
    """What a night leaves to the next: since when a version's detector counts, and whether an alarm stands."""

    version: int
    """The version's number."""
    start: int
    """Date ordinal of the first night that counts."""
    since: int | None = None
    """Date ordinal of the night on which the standing alarm was raised; None where none stands."""


@dataclass(frozen=True, eq=False)
class KnownTruth:
    """What is known of the outcomes of one version."""

    matured: int
    """Date ordinal of the newest night up to which cohorts have matured, whole."""
    profile: Nights = profile.EMPTY
    """Counts of label and loss per night (profile.truth)."""
    nights: Counts = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """(rows,): date ordinal of the night of every matured row, non-decreasing."""
    score: Floats = field(default_factory=lambda: np.empty(0))
    """(rows, *shape): its score."""
    label: Floats = field(default_factory=lambda: np.empty(0))
    """(rows,): its label, 0 or 1, or an amount in the label's unit."""
    waiting: Floats = field(default_factory=lambda: np.empty(0))
    """Scores of the window whose truth is not in."""


@dataclass(frozen=True)
class TrainedPromise:
    """What was said of the version before it served."""

    loss_high: float | None
    """Upper end of the interval of its held-out measure; None where it was not kept."""
    safe_default: Default
    """The constant of the spec."""
    min_matured: int
    """Number of matured rows below which performance is not tested."""
    target: Target = YES_OR_NO
    """The kind of label: it says what the measure is."""


@dataclass(frozen=True)
class DriftComparison:
    """One version on one night, held against its training."""

    signals: tuple[Signal, ...]
    """Everything that was looked at, column by column."""
    broken: tuple[Broken, ...]
    """Columns that look broken tonight."""
    alarm: bool
    """Whether an alarm stands."""
    raised: bool
    """Whether it was raised tonight."""
    moved: tuple[str, ...]
    """Columns whose effect is confirmed tonight and was not the night before."""
    evidence: float
    """The model's e-detector."""
    threshold: float
    """The evidence from which on it is an alarm, in nights between two false alarms."""
    harm: Harm
    """Whether performance feels it."""
    harm_reason: str
    """The figures behind `harm`, as a sentence."""
    standing: Standing
    """What the night leaves to the next."""
    disagreed: tuple[str, ...] = ()
    """Columns of an alarm that Evidently did not confirm."""


Agrees = Callable[[Sequence[str], Mapping[str, float]], frozenset[str]]
"""Asks Evidently about the raw window: columns, their thresholds → those that it calls drifted."""


def compare(
    reference: Reference,
    production: Nights,
    truth: KnownTruth,
    policy: DriftPolicy,
    promise: TrainedPromise,
    threshold: float,
    version: int,
    night: int,
    *,
    window: int = 7,
    standing: Standing | None = None,
    answered: int | None = None,
    trusted: bool = True,
    left_out: frozenset[int] = frozenset(),
    agrees: Agrees | None = None,
) -> DriftComparison:
    """Hold one version on one night (a date ordinal) against its training, by its nights in production up to it.

    `production` has the profiles of features and prediction; later nights and truth that had not matured must not be
    in it. `window` is the policy's, in nights. `standing` is what the last night left that was compared, `answered` the
    last earlier night whose retrain answers an alarm (ModelHistory.answered). `left_out` are nights of open data
    incidents; `trusted` says whether tonight is none. Without `agrees` the effect alone confirms the evidence.
    """
    production = production.until(night)
    faults = {name: _faults(column, production.counts[name]) for name, column in _shared(reference, production).items()}
    broken = _broken_tonight(reference, production, night, faults)
    unusable = {int(production.nights[place]) for nightly in faults.values() for place in nightly} | left_out
    usable, outcomes = _without(production, unusable), _without(truth.profile, unusable)
    start = _start(standing, version, night, answered)
    began = start.start
    detectors = e_detectors(reference, usable, outcomes, began, began - (night - truth.matured))
    total = sum(column.weight * detectors.get(column.name, 0.0) for column in reference.columns)

    signals, before = _effects(reference, usable, outcomes, policy, window, night, truth.matured, detectors)
    confirmed = [signal for signal in signals if signal.drifted]
    since, raised = start.since, False
    disagreed: tuple[str, ...] = ()
    proven = [signal for signal in confirmed if (signal.evidence or 0.0) >= threshold]
    if since is None and total >= threshold and proven and not broken and trusted:
        limits = {signal.column: signal.threshold or 0.0 for signal in proven}
        agreed = agrees(tuple(limits), limits) if agrees is not None else frozenset(limits)
        raised = bool(agreed)
        since = night if raised else None
        disagreed = tuple(sorted(limits.keys() - agreed))
    elif since is not None and not confirmed and not broken and trusted:
        since, began = None, night + 1
    bounds = decay(truth, promise, threshold, window)
    felt = (*bounds, *_risen(reference, signals, outcomes, truth.matured, window, threshold, promise.target.figure))
    harm, harm_reason = _harm(felt, truth, promise) if since is not None else _realized(felt)
    return DriftComparison(
        signals=(*signals, *_gaps(reference, production, night, faults), *bounds),
        broken=broken,
        alarm=since is not None,
        raised=raised,
        moved=tuple(signal.column for signal in confirmed if signal.column not in before),
        evidence=total,
        threshold=threshold,
        harm=harm,
        harm_reason=harm_reason,
        standing=Standing(version, began, since),
        disagreed=disagreed,
    )


def _broken_tonight(
    reference: Reference, production: Nights, night: int, faults: Mapping[str, Mapping[int, str]]
) -> tuple[Broken, ...]:
    """The columns that look broken on `night`; none where it has no rows."""
    if not len(production.nights) or production.nights[-1] != night:
        return ()
    tonight = len(production.nights) - 1
    views = {column.name: column.view for column in reference.columns}
    return tuple(
        Broken(views[name] or "shadow", name, nightly[tonight])
        for name, nightly in faults.items()
        if tonight in nightly
    )


def _start(standing: Standing | None, version: int, night: int, answered: int | None) -> Standing:
    """Since when the detector counts: from the first night the version is looked at, from after what ended an alarm."""
    if standing is None or standing.version != version:
        return Standing(version, night)
    if standing.since is not None and answered is not None and answered >= standing.since:
        return Standing(version, answered + 1)
    return standing


# -- e-detectors ------------------------------------------------------------------------------


def e_detectors(
    reference: Reference, production: Nights, outcomes: Nights, start: int, matured_from: int
) -> dict[str, float]:
    """Column → its e-detector after the last night. Label and loss count from cohort `matured_from` on: those whose
    truth was not in when the detector started."""
    detectors: dict[str, float] = {}
    for nights, begin in ((production, start), (outcomes, matured_from)):
        groups: dict[bytes, list[ProfiledColumn]] = {}
        for name, column in _shared(reference, nights).items():
            groups.setdefault((nights.counts[name].sum(axis=1) > 0).tobytes(), []).append(column)
        for pattern, columns in groups.items():
            inside = np.frombuffer(pattern, dtype=bool)
            if not inside.any():
                continue
            counts = [nights.counts[column.name][inside] for column in columns]
            after = detector.detect(columns, reference.nights, nights.nights[inside], counts, begin)
            if len(after.nights):
                last = zip(columns, after.value[-1], strict=True)
                detectors |= {column.name: float(value) for column, value in last}
    return detectors


def _shared(reference: Reference, nights: Nights) -> dict[str, ProfiledColumn]:
    """The columns of the reference that the nights have, too."""
    return {column.name: column for column in reference.columns if column.name in nights.counts}


def _without(nights: Nights, unusable: set[int] | frozenset[int]) -> Nights:
    inside = ~np.isin(nights.nights, list(unusable)) if unusable else np.ones(len(nights.nights), dtype=bool)
    return Nights(nights.nights[inside], {name: counts[inside] for name, counts in nights.counts.items()})


# -- effects ----------------------------------------------------------------------------------


def composed(column: ProfiledColumn, training: Counts, rows: Floats) -> Floats:
    """(windows, cells): training's shares, composed of weekdays as `rows` (windows, 7) are."""
    return _composed(_by_weekday(training).T @ column.counts, rows)


def _composed(weekdays: Floats, rows: Floats) -> Floats:
    """`weekdays` (7, cells) or (windows, 7, cells): counts of training by weekday; one without rows lends all."""
    total = weekdays.sum(axis=-1, keepdims=True)
    whole = weekdays.sum(axis=-2, keepdims=True)
    shares = np.where(
        total > 0, weekdays / np.maximum(total, 1), whole / np.maximum(whole.sum(axis=-1, keepdims=True), 1)
    )
    mixed: Floats = np.einsum("wd,wdc->wc", rows, np.broadcast_to(shares, (len(rows), *shares.shape[-2:])))
    return mixed


def _by_weekday(nights: Counts) -> Floats:
    """(nights, 7) of 0 and 1."""
    return np.eye(7)[nights % 7]


@lru_cache(maxsize=512)
def floors(reference: Reference, window: int) -> dict[str, tuple[float, float]]:
    """Column → the largest distance that a window of training shows to the rest of training, and the mean rows of
    such a window: what the version has seen by itself is no news. (0, 0) where training is too short for two."""
    nights = reference.nights
    ends = np.arange(nights[0] + window - 1, nights[-1] + 1) if len(nights) else np.empty(0)
    inside = ((nights[None, :] > ends[:, None] - window) & (nights[None, :] <= ends[:, None])).astype(np.float64)
    weekday = _by_weekday(nights)
    largest: dict[str, tuple[float, float]] = {}
    for column in reference.columns:
        if len(nights) < 2 * window or not len(ends):
            largest[column.name] = (0.0, 0.0)
            continue
        counts = column.counts.astype(np.float64)
        size = counts.sum(axis=1)
        within = np.stack([(inside * weekday[:, day]) @ counts for day in range(7)], axis=1)
        rows = (inside * size) @ weekday
        rest = (weekday.T @ counts)[None] - within
        apart = profile.distance(column.cells, _composed(rest, rows), within.sum(axis=1))
        apart = apart[np.isfinite(apart)]
        largest[column.name] = (float(apart.max()) if len(apart) else 0.0, float(rows.sum(axis=1).mean()))
    return largest


def _effects(
    reference: Reference,
    production: Nights,
    outcomes: Nights,
    policy: DriftPolicy,
    window: int,
    night: int,
    matured: int,
    detectors: Mapping[str, float],
) -> tuple[tuple[Signal, ...], frozenset[str]]:
    """A signal per column of the reference; and the columns that had drifted by the night before."""
    signals: list[Signal] = []
    before: set[str] = set()
    of, least = policy.hysteresis.of, policy.hysteresis.least
    limits = floors(reference, window)
    for column in reference.columns:
        nights, last = (outcomes, matured) if column.name in (LABEL, LOSS) else (production, night)
        if column.name not in nights.counts:
            signals.append(
                _unknown(column, "no truth yet" if nights is outcomes else "not in the feature views any more")
            )
            continue
        ends = last - np.arange(of + 1)
        inside = (nights.nights[None, :] > ends[:, None] - window) & (nights.nights[None, :] <= ends[:, None])
        counts = nights.counts[column.name]
        now = inside.astype(np.float64) @ counts
        values = now[:, :-1].sum(axis=1)
        rows = (inside * counts.sum(axis=1)) @ _by_weekday(nights.nights)
        apart = profile.distance(column.cells, composed(column, reference.nights, rows), now)
        if values[0] < MIN_VALUES or not np.isfinite(apart[0]):
            signals.append(_unknown(column, _too_few(values[0])))
            continue
        floor, usual = limits[column.name]
        size = np.maximum(now.sum(axis=1), 1.0)
        limit = np.maximum(policy.min_effect, floor * np.sqrt(np.maximum(1.0, usual / size)))
        over = (apart >= limit) & (values >= MIN_VALUES)
        if over[1:].sum() >= least:
            before.add(column.name)
        signals.append(
            Signal(
                column.kind,
                column.name,
                column.view,
                STATISTIC[column.cells.is_numeric],
                value=float(apart[0]),
                threshold=float(limit[0]),
                drifted=bool(over[:of].sum() >= least),
                evidence=detectors.get(column.name),
                weight=column.weight,
                note=_note(column, now[0]),
            )
        )
    return tuple(signals), frozenset(before)


def _unknown(column: ProfiledColumn, why: str) -> Signal:
    statistic = STATISTIC[column.cells.is_numeric]
    return Signal(column.kind, column.name, column.view, statistic, None, None, False, None, column.weight, why)


def _too_few(values: float) -> str:
    if not values:
        return "no values in the window"
    if values < MIN_VALUES:
        return f"{values:.0f} values in the window, {MIN_VALUES} needed"
    return "no values in training"


def _note(column: ProfiledColumn, now: Floats) -> str:
    beyond = now[column.cells.outside].sum() / max(now[:-1].sum(), 1.0)
    if beyond < 0.01:
        return ""
    what = "outside the range of training" if column.cells.is_numeric else "in categories training never saw"
    return f"{beyond:.0%} {what}"


# -- broken -----------------------------------------------------------------------------------


def _faults(column: ProfiledColumn, counts: Counts) -> dict[int, str]:
    """Place of a night → what makes its column look broken. Nights with few rows are not tested."""
    if column.kind != "feature" or not len(counts) or not column.counts[:, :-1].sum():
        return {}  # a column of which training saw no value has nothing that it could have departed from
    cells, rows = column.cells, counts.sum(axis=1)
    is_tested = rows >= MIN_VALUES
    faults: dict[int, str] = {}
    usual = profile.missing(column.counts.sum(axis=0))
    training = profile.missing(column.counts)[column.counts.sum(axis=1) >= MIN_VALUES]
    worst = max(float(usual), float(training.max()) if len(training) else 0.0)
    share = np.nan_to_num(profile.missing(counts))
    for place in np.flatnonzero(is_tested & (share >= worst + MISSING_RISE)):
        faults[int(place)] = f"{share[place]:.0%} of {column.name} is missing, {float(usual):.0%} at training"
    present = counts[:, :-1]
    values = present.sum(axis=1)
    tops = column.counts[:, :-1].max(axis=1) / np.maximum(column.counts[:, :-1].sum(axis=1), 1)
    top = min(max(float(tops.max()) if len(tops) else 1.0, 1e-6), 1.0)
    constant = (present.max(axis=1) == values) & (values >= MIN_VALUES) & (values * np.log(top) < np.log(CHANCE))
    elsewhere = (present @ cells.outside[:-1]) / np.maximum(values, 1)
    is_elsewhere = elsewhere >= ELSEWHERE
    scale = np.ones(len(counts))
    usable = column.counts[column.counts[:, :-1].sum(axis=1) >= MIN_VALUES]
    if cells.is_numeric and len(usable):
        past, now = _quartiles(column, usable), _quartiles(column, counts)
        if (np.abs(np.median(past, axis=0)) > 0.05 * cells.deviation).all() and (
            np.sign(past) == np.sign(past[0])
        ).all():
            size, sizes = np.abs(now), np.abs(past)
            above, below = (size / sizes.max(axis=0)).min(axis=1), (size / sizes.min(axis=0)).max(axis=1)
            same = (np.sign(now) == np.sign(past[0])).all(axis=1)
            scale = np.where(same & (above >= SCALE), above, np.where(same & (below <= 1 / SCALE), below, 1.0))
    for odd in _at_once((is_elsewhere | (scale != 1.0)) & (values >= MIN_VALUES), elsewhere, column, counts):
        where = f"{elsewhere[odd]:.0%} of {column.name} lies where training never was"
        factor = f"the quartiles of {column.name} are {scale[odd]:.3g} times those of any training night"
        faults.setdefault(odd, f"{where if is_elsewhere[odd] else factor}, from one night to the next: another unit?")
    for place in np.flatnonzero(constant):
        faults.setdefault(
            int(place), f"{column.name} has one value only, at most {top:.0%} of a training night had one"
        )
    return faults


def _quartiles(column: ProfiledColumn, counts: Counts) -> Floats:
    """(nights, 3): the places of the cells in which the quartiles lie."""
    rows = np.cumsum(counts[:, :-1], axis=1)
    target = rows[:, -1:] * np.array([0.25, 0.5, 0.75])
    place = (rows[:, None, :] < target[:, :, None]).sum(axis=2)
    quartiles: Floats = column.cells.places[np.minimum(place, len(column.cells.places) - 1)]
    return quartiles


def _at_once(suspect: Mask, elsewhere: Floats, column: ProfiledColumn, counts: Counts) -> list[int]:
    """Of the suspect nights those whose run began abruptly: the night before it was one like training's."""
    abrupt: list[int] = []
    for place in map(int, np.flatnonzero(suspect)):
        first = place
        while first > 0 and suspect[first - 1]:
            first -= 1
        if first == 0:
            abrupt.append(place)  # the first night in production: it follows those of training
            continue
        if elsewhere[first - 1] >= ELSEWHERE / 3:
            continue
        if elsewhere[first] < ELSEWHERE:  # within the range: the scale has to have jumped that night
            now, past = _quartiles(column, counts[[first, first - 1]])
            if abs(now[1] - past[1]) <= column.cells.deviation and _apart(now[1], past[1]) < SCALE / 2:
                continue
        abrupt.append(place)
    return abrupt


def _apart(first: float, second: float) -> float:
    small, large = sorted((abs(first), abs(second)))
    return large / small if small > 0 else float("inf")


def _gaps(
    reference: Reference, production: Nights, night: int, faults: Mapping[str, Mapping[int, str]]
) -> tuple[Signal, ...]:
    """A signal of the kind `missing` for every feature whose share of missing values has jumped tonight."""
    if not len(production.nights) or production.nights[-1] != night:
        return ()
    gaps = []
    for name in faults:
        column = reference.column(name)
        assert column is not None
        rise = float(profile.missing(production.counts[name][-1]) - profile.missing(column.counts.sum(axis=0)))
        note = faults[name].get(len(production.nights) - 1, "")
        if note and rise >= MISSING_RISE:
            gaps.append(
                Signal(
                    "missing", name, column.view, "missing_rise", rise, MISSING_RISE, True, None, column.weight, note
                )
            )
    return tuple(gaps)


# -- harm -------------------------------------------------------------------------------------


def decay(truth: KnownTruth, promise: TrainedPromise, looks: float, window: int) -> tuple[Signal, ...]:
    """Two signals from the newest matured cohorts, a window of them, each by a lower confidence bound.

    The measure: realized, it is above the upper end of its held-out interval at training. `safe_default`:
    the score is above that of the constant safe default on the same rows (paired). Either one is felt. A bound is
    wrong with a chance of 1 / `looks` a night, so that in T nights of looking it is wrong T / looks times at most in
    expectation (linearity: however the nights depend on each other), the same promise as the detector's. Bounds
    are clustered by night. Fewer than min_matured rows, too thin for the gate, are not tested.
    """
    inside = truth.nights > truth.matured - window
    score, label, nights = truth.score[inside], truth.label[inside], truth.nights[inside]
    clusters = np.unique(nights, return_inverse=True)[1].astype(np.int64)
    if len(score) < promise.min_matured or not len(clusters) or clusters.max() < 1:
        why = f"{len(score)} of {promise.min_matured} matured predictions in the window"
        return _untested(promise.target.measure, why), _untested("safe_default", why)
    losses = promise.target.row_losses(score, label)
    excess = losses - promise.target.row_losses(promise.target.constant(promise.safe_default, len(score)), label)
    confidence = 1 - 2 / max(looks, 4.0)
    loss_low, excess_low = (_low(values, clusters, confidence) for values in (losses, excess))
    loss = float(losses.mean())
    realized = f"realized {promise.target.figure} {loss:.3f}"
    note = f"{realized}, the safe default's on the same rows {loss - float(excess.mean()):.3f}"
    against_default = Signal(
        "performance", "safe_default", None, "lower_bound", excess_low, 0.0, excess_low > 0.0, note=note
    )
    if promise.loss_high is None:
        return _untested(promise.target.measure, NOT_KEPT), against_default
    against = f"{realized} (at least {loss_low:.3f}), held out at training at most {promise.loss_high:.3f}"
    against_training = Signal(
        "performance",
        promise.target.measure,
        None,
        "lower_bound",
        loss_low,
        promise.loss_high,
        loss_low > promise.loss_high,
        note=against,
    )
    return against_training, against_default


def _risen(
    reference: Reference,
    signals: Sequence[Signal],
    outcomes: Nights,
    matured: int,
    window: int,
    threshold: float,
    figure: str,
) -> tuple[Signal, ...]:
    """The loss column's signal, where it alone says that performance is worse: its own e-detector is over the
    threshold, its effect is confirmed, and losses are larger than at training. Faster than a bound on few nights."""
    column = reference.column(LOSS)
    signal = next((signal for signal in signals if signal.column == LOSS and signal.drifted), None)
    if column is None or signal is None or (signal.evidence or 0.0) < threshold:
        return ()
    inside = outcomes.nights > matured - window
    now, past = (_mean(column, counts.sum(axis=0)) for counts in (outcomes.counts[LOSS][inside], column.counts))
    if now <= past:
        return ()
    evidence = strength(signal.evidence or 0.0)
    note = f"{figure} {now:.3f} on the newest matured cohorts, {past:.3f} at training (evidence {evidence})"
    return (replace(signal, note=note),)


def _mean(column: ProfiledColumn, counts: Counts) -> float:
    return float(counts[:-1] @ column.cells.places / max(counts[:-1].sum(), 1))


def _low(values: Floats, clusters: NDArray[np.int64], confidence: float) -> float:
    interval = evaluation.clustered_interval(values, clusters, confidence)
    return interval[0] if interval else float("-inf")


def _untested(column: str, why: str) -> Signal:
    return Signal("performance", column, None, "lower_bound", None, None, False, note=why)


def _realized(felt: Sequence[Signal]) -> tuple[Harm, str]:
    worse = [signal for signal in felt if signal.drifted]
    if worse:
        return "felt", worse[0].note
    tested = [signal for signal in felt if signal.value is not None]
    return ("not_felt", tested[0].note) if tested else ("unknown", felt[0].note)


def _harm(felt: Sequence[Signal], truth: KnownTruth, promise: TrainedPromise) -> tuple[Harm, str]:
    """Realized performance first; where that feels nothing yet, what the scores of the window promise."""
    harm, reason = _realized(felt)
    if harm == "felt" or promise.loss_high is None or len(truth.waiting) < MIN_VALUES:
        return harm, reason
    if promise.target.inestimable:
        return harm, reason
    expected = estimate.performance(truth.waiting, truth.score, truth.label)
    if expected.brier is None or expected.low is None or expected.high is None:
        return harm, reason
    between = f"estimated Brier {expected.brier:.3f} ({expected.low:.3f} to {expected.high:.3f})"
    note = f"{between}, held out at training at most {promise.loss_high:.3f}; estimated, the truth is not in"
    if expected.low > promise.loss_high:
        return "felt", note
    return "not_felt", f"{reason}; {note}" if harm == "not_felt" else note
