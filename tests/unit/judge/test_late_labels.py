"""Labels that come late, in whatever order: the truth is that of the labels' own times, not of their way here."""

import os
import random
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pandas as pd

from tests.unit.conftest import FIRST, Arena
from tiltyard.judge import shadow
from tiltyard.lake import identifier
from tiltyard.prepare import truth
from tiltyard.spec import Spec

ORDERS = int(os.environ.get("LATE_LABEL_ORDERS", "3"))
"""Orders that are tried."""
FROM = int(os.environ.get("FUZZ_FROM", "0"))
"""The seed of the first."""
NIGHTS, ROWS, BATCHES = 6, 120, 6
DAY = timedelta(days=1)
ROLES: dict[int | None, str] = {1: "champion", 2: "challenger"}


def history(spec: Spec) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of two versions over NIGHTS, and their labels, of which a quarter is corrected later."""
    rng = np.random.default_rng(20160301)
    spine = pd.DataFrame(
        {
            "ticket_id": [f"t{number:03}" for number in range(ROWS)],
            "prediction_time": [FIRST + timedelta(hours=float(rng.uniform(0, 24 * NIGHTS))) for _ in range(ROWS)],
        }
    )
    versions = [
        spine.rename(columns={"ticket_id": "entity_id"}).assign(
            version=number, role=role, score=rng.uniform(0, 1, ROWS)
        )
        for number, role in ROLES.items()
    ]
    late = [timedelta(days=2, seconds=float(rng.exponential(86_400))) for _ in range(ROWS)]
    first = spine.assign(
        label=rng.uniform(0, 1, ROWS) < 0.3,
        available_at=[at + by for at, by in zip(spine["prediction_time"], late, strict=True)],
    )
    again = first.sample(frac=0.25, random_state=1)
    again = again.assign(
        label=~again["label"],
        available_at=again["available_at"] + pd.to_timedelta(rng.uniform(1, 216, len(again)), "h"),
    )
    return pd.concat(versions, ignore_index=True), pd.concat([first, again], ignore_index=True)


def test_the_truth_is_the_same_in_whatever_order_labels_come(
    arena: Arena, record_property: Callable[[str, object], None]
) -> None:
    record_property("cases", ORDERS)
    spec = arena.spec("late_labels")
    predictions, labels = history(spec)
    arena.predict(spec, predictions)
    rails, table = arena.rails, identifier(f"labels.{spec.label.table}")
    looks = [FIRST + number * DAY for number in (4, 7, 11, 20)]
    expected = {}
    for order in range(FROM, FROM + ORDERS):
        shuffled = labels.sample(frac=1, random_state=order)
        ends = sorted(random.Random(order).sample(range(1, len(labels)), BATCHES - 1))
        for begin, end in zip([0, *ends], [*ends, len(labels)], strict=True):
            arena.label(spec, shuffled.iloc[begin:end])
        for as_of in looks:
            rows = truth.matured(rails, spec, as_of)
            found = (
                [tuple(row) for row in rows[["entity_id", "version", "label", "score"]].itertuples(index=False)],
                truth.counts(rails, spec, as_of),
                truth.by_version(rails, spec, as_of),
                repr(shadow.evaluations(rails, spec, as_of, ROLES, rows, FIRST.date())),
            )
            assert found == expected.setdefault(as_of, found), f"FUZZ_FROM={order}, at {as_of}"
        rails.lake.commit(lambda connection: connection.execute(f"delete from {table}"), message="anew")
    for as_of in looks:
        known = labels[labels["available_at"] <= as_of].sort_values("available_at").groupby("ticket_id")["label"].last()
        assert {(who, label) for who, _, label, _ in expected[as_of][0]} <= set(known.astype(int).items())
    corrected = {who: label for who, _, label, _ in expected[looks[-1]][0]}
    assert len(corrected) == ROWS and corrected != {who: label for who, _, label, _ in expected[looks[1]][0]}
