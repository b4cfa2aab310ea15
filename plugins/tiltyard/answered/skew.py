"""Whether models get online what they were given at training and at night: training-serving skew, feature by feature.

The features of the window's requests are counted into the champion's own cells (`profile`) and held against the counts
of the rows that the shadow stage scored in the same nights, or against training where there are none. Two samples of
one distribution differ, too: a feature is skewed when its distance is over the spec's `drift.min_effect` and over what
DRAWS pairs of samples of the same sizes, drawn from both sides pooled, reached by chance (a parametric bootstrap, Efron
and Tibshirani 1993, An introduction to the bootstrap, section 16.2). The same is asked of the share that is missing.

The entities that ask online need not be those of the night's spine: where they differ, so may their features, without
anything being wrong. `online.check` compares value by value, at the same key and instant; this sees what the
caller gave as well.
"""

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.rails import Rails
from tiltyard.records import Skew, SkewedFeature
from tiltyard.spec import Spec
from tiltyard.tables import REQUEST
from tiltyard.train import profile, registry

DRAWS = 400
"""Number of pairs of samples that say what chance does."""
LEAST = 50
"""Number of requests below which nothing is said."""
MOST = 20_000
"""Number of requests that are looked at, one per entity and night; of more, a hash of their ids picks."""

Counts = NDArray[np.int64]


def look(rails: Rails, spec: Spec, as_of: datetime, version: int, offline: profile.Nights) -> Skew | None:
    """Skew of the window that ends at `as_of`. `offline` are the version's profiles of its nights.

    None without a request, or for a version from before there were profiles.
    """
    if not rails.lake.has(REQUEST):
        return None
    rows = _requests(rails, spec, as_of)
    reference = registry.load(rails, spec.name, version).profile if len(rows) else None
    if reference is None:
        return None
    first = night_closing(as_of - spec.drift.window + clock.NIGHT).toordinal()
    window = (offline.nights >= first) & (offline.nights <= night_closing(as_of).toordinal())
    features: dict[str, SkewedFeature] = {}
    for column in reference.columns:
        if column.kind == "feature" and column.name in rows and len(rows) >= LEAST:
            nights = offline.counts.get(column.name)
            counted = nights[window].sum(axis=0) if nights is not None else np.zeros(0, dtype=np.int64)
            against = "offline" if counted.sum() >= LEAST else "training"
            before = counted if against == "offline" else column.counts.sum(axis=0)
            now = profile.count(column.cells, rows[column.name])
            rng = np.random.default_rng(night_closing(as_of).toordinal())
            comparison = compare(column.cells, before, now, spec.drift.min_effect, rng)
            features[column.name] = replace(comparison, against=against)
    return Skew(
        rows=len(rows),
        skewed=tuple(name for name, feature in features.items() if feature.skewed),
        features=features,
        note=None if len(rows) >= LEAST else f"fewer than {LEAST} requests",
    )


def compare(
    cells: profile.Cells, before: Counts, now: Counts, min_effect: float, rng: np.random.Generator
) -> SkewedFeature:
    """Distance and shares of missing values of two histograms, (cells,) each, and whether one is over its limit."""
    pooled = (before + now) / (before.sum() + now.sum())
    samples = [rng.multinomial(int(side.sum()), pooled, size=DRAWS) for side in (before, now)]
    by_chance = profile.distance(cells, *samples)
    chance = float(np.nanmax(by_chance)) if np.isfinite(by_chance).any() else 0.0
    missing_by_chance = float(np.abs(profile.missing(samples[0]) - profile.missing(samples[1])).max())
    value = float(profile.distance(cells, before, now))
    shares = [float(profile.missing(side)) for side in (before, now)]
    limit, missing_limit = max(min_effect, chance), max(min_effect, missing_by_chance)
    return SkewedFeature(
        value=value if np.isfinite(value) else None,
        threshold=limit,
        missing=shares[1],
        missing_offline=shares[0],
        skewed=bool((np.isfinite(value) and value > limit) or abs(shares[1] - shares[0]) > missing_limit),
    )


def _requests(rails: Rails, spec: Spec, as_of: datetime) -> pd.DataFrame:
    """The features of the window's requests, one per entity and night, a column each."""
    start, _ = clock.interval(as_of, spec.drift.window)
    rows = rails.lake.query(
        f"""
        select features from {{{REQUEST}}}
        where model = $model and prediction_time >= $start and prediction_time < $end
        qualify row_number() over (
            partition by coalesce(entity_id, concat(request_id, '/', "row")), night
            order by prediction_time desc, scored_at
        ) = 1
        order by hash(request_id), "row" limit $most
        """,
        as_of,
        {"model": spec.name, "start": start, "end": as_of, "most": MOST},
    )
    return pd.DataFrame([json.loads(text) for text in rows["features"]])
