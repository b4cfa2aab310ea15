"""Simulated models for the drift benchmarks: thirty correlated features, a score, a label, night after night.

Nights differ in volume and level by weekday, and beyond that more than chance would have it (overdispersed): every
night has shocks of its own, shared by its rows. Scores are calibrated by construction. A *shift* changes the stream
from one night on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from tiltyard.govern.change import KnownTruth, TrainedPromise
from tiltyard.train import profile

FEATURES = 30
NUMBERS, AMOUNTS, CATEGORIES, FLAGS = range(18), range(18, 24), range(24, 28), range(28, 30)
TRAINING = 63
LAG = 10
"""Nights until the truth of a night is in."""
FIRST = date(2024, 1, 1).toordinal()

Frame = dict[str, np.ndarray]


@dataclass
class Stream:
    """A model and its nights. `seen` begins after the training nights; the truth of a night is in after LAG nights."""

    reference: profile.Reference
    seen: profile.Nights
    nights: np.ndarray
    """Night of every row in production, with its score and label."""
    score: np.ndarray
    label: np.ndarray
    known: profile.Nights
    promise: TrainedPromise
    frame: Frame
    """Raw values of all rows, training's first."""
    all_nights: np.ndarray

    def truth(self, night: int) -> KnownTruth:
        matured = night - LAG
        end = int(np.searchsorted(self.nights, matured, side="right"))
        now = int(np.searchsorted(self.nights, night, side="right"))
        start = max(end, int(np.searchsorted(self.nights, night - 7, side="right")))
        past = self.known.until(matured)
        return KnownTruth(matured, past, self.nights[:end], self.score[:end], self.label[:end], self.score[start:now])


@dataclass(frozen=True)
class Shift:
    """`latent` changes the normal values behind the features, `columns` the features, `chance` the label's chance.

    Each gets the rows' age in nights since the shift (negative before it) and a generator.
    """

    name: str
    expected: str
    """alarm, broken, or none."""
    latent: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray] | None = None
    columns: Callable[[Frame, np.ndarray, np.random.Generator], None] | None = None
    chance: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    week: float = 0.3
    """Standard deviation of the weekday's level."""
    turned: int = 0
    """By so many days the weekly pattern is moved."""
    volume: float = 1.0


def simulate(seed: int, days: int, *, rows: float = 150, shift: Shift | None = None, at: int = 0) -> Stream:
    """TRAINING nights and `days` more; the shift begins `at` nights after training."""
    random = np.random.default_rng(seed)
    count = TRAINING + days
    nights = FIRST + np.arange(count)
    age = np.arange(count) - TRAINING - at if shift else np.full(count, -1)
    volume = rows * np.where(nights % 7 >= 5, 0.5, 1.0) * random.gamma(20, 1 / 20, count)
    volume = volume * np.where(age >= 0, shift.volume if shift else 1.0, 1.0)
    size = random.poisson(volume) + 10
    index = np.repeat(np.arange(count), size)
    total = len(index)
    loads = random.normal(0, 0.5, (FEATURES, 3))
    week = random.normal(0, shift.week if shift else 0.3, (7, FEATURES))
    weekday = (nights + np.where(age >= 0, shift.turned if shift else 0, 0)) % 7
    shock = random.normal(0, 0.15, (count, 3)) @ loads.T + random.normal(0, 0.08, (count, FEATURES))
    latent = random.normal(size=(total, 3)) @ loads.T + random.normal(size=(total, FEATURES))
    latent += (week[weekday] + shock)[index]
    own = age[index]
    if shift and shift.latent:
        latent = shift.latent(latent, own, random)
    weights = np.zeros(FEATURES)
    weights[:12] = random.normal(0, 0.5, 12)
    weights[0] = 0.8
    frame: Frame = {}
    for place in NUMBERS:
        frame[f"f{place}"] = latent[:, place].copy()
    for place in AMOUNTS:
        frame[f"f{place}"] = np.exp(3 + latent[:, place])
    for place in CATEGORIES:
        code = np.searchsorted([-1.2, -0.4, 0.3, 1.0, 1.7], latent[:, place])
        frame[f"f{place}"] = np.array(list("abcdef"), dtype=object)[code]
    for place in FLAGS:
        frame[f"f{place}"] = (latent[:, place] > 0.8).astype(object)
    for place in (4, 20):
        frame[f"f{place}"][random.random(total) < 0.1] = np.nan
    signal = -1.5 + latent @ weights
    if shift and shift.columns:
        shift.columns(frame, own, random)
        seen = latent.copy()
        for place in NUMBERS:
            seen[:, place] = np.nan_to_num(frame[f"f{place}"])
        score = 1 / (1 + np.exp(1.5 - seen @ weights))
    else:
        score = 1 / (1 + np.exp(-signal))
    chance = 1 / (1 + np.exp(-signal))
    if shift and shift.chance:
        chance = shift.chance(chance, signal, own)
    label = (random.random(total) < chance).astype(np.float64)

    cut = int(size[:TRAINING].sum())
    training = pd.DataFrame({name: values[:cut] for name, values in frame.items()})
    kinds = {f"f{place}": "categorical" if place in (*CATEGORIES, *FLAGS) else "numeric" for place in range(FEATURES)}
    strength = np.abs(weights) / np.abs(weights).sum()
    importance = {f"f{place}": float(strength[place]) for place in range(FEATURES)}
    views = dict.fromkeys(kinds, "ftr_simulated")
    ordinals = nights[index]
    described = profile.describe(training, kinds, views, ordinals[:cut], score[:cut], label[:cut], importance)
    reference = profile.read({"profile": described})
    assert reference is not None
    later = index[cut:] - TRAINING
    counts = {
        column.name: profile.count_nights(
            column.cells, frame[column.name][cut:] if column.name in frame else score[cut:], later, days
        )
        for column in reference.columns
        if column.kind in ("feature", "prediction")
    }
    known = profile.truth(reference, ordinals[cut:], score[cut:], label[cut:])
    losses = (score[:cut] - label[:cut]) ** 2
    brier = float(losses.mean() + 2 * losses.std() / np.sqrt(cut))
    seen = profile.Nights(nights[TRAINING:], counts)
    promise = TrainedPromise(brier, float(label[:cut].mean()), 500)
    return Stream(reference, seen, ordinals[cut:], score[cut:], label[cut:], known, promise, frame, ordinals)
