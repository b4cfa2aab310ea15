"""A month of shops with something to learn, and a model trained on it: for the tests of training and registry."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.spec import Spec

FIRST = instant("2024-03-01")
DAYS = 30
PER_DAY = 24
AS_OF = FIRST + timedelta(days=DAYS + 2)
"""All labels have matured by then: they take two days."""


@contextmanager
def market(folder: Path, postgres_url: str, *, leaks: bool = False) -> Iterator[tuple[Rails, Spec]]:
    """Visits to shops; large shops in a good mood sell. The home has a space in its path.

    With `leaks`, a shop's `is_open` tells the sale before it happens.
    """
    prefix = f"market{uuid.uuid4().hex[:8]}_"
    settings = Settings(home=folder / "a home", database_url=postgres_url, database_prefix=prefix, threads=1)
    with rails_module.opened(settings) as rails:
        rng = np.random.default_rng(1)
        moods, shops = ("good", "bad", None), 40
        size, mood = rng.integers(1, 100, shops), rng.integers(0, 3, shops)
        fill(
            rails,
            FEATURES,
            [
                {
                    "shop_id": f"s{shop}",
                    "size": None if shop % 10 == 0 else int(size[shop]),
                    "mood": moods[mood[shop]],
                    "is_open": bool(shop % 2),
                    "event_time": FIRST - timedelta(days=1),
                }
                for shop in range(shops)
            ],
        )
        visits, sales = [], []
        for number in range(DAYS * PER_DAY):
            at, shop = FIRST + timedelta(hours=number * 24 / PER_DAY), int(rng.integers(shops))
            visit = {"visit_id": f"v{number:04}", "prediction_time": at}
            visits.append({**visit, "shop_id": f"s{shop}"})
            chance = 0.15 + 0.5 * (size[shop] > 50) + 0.25 * (mood[shop] == 0)
            sold = shop % 2 if leaks else rng.random() < chance
            done = {"event_time": at, "available_at": at + timedelta(days=2)}
            sales.append({**visit, "label": bool(sold), **done})
        fill(rails, SPINES, visits)
        fill(rails, LABELS, sales)
        publish(rails, AS_OF)
        yield rails, small_spec(folder)


def publish(rails: Rails, as_of: datetime) -> None:
    rails.ledger.record_stage("", night_closing(as_of), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
