"""How many answers it takes to copy a model, with whole scores and with rounded ones.

Somebody who may ask trains a copy on what he was answered (Tramèr et al., Stealing Machine Learning Models via
Prediction APIs, USENIX Security 2016): a decision tree, and gradient boosting as the stronger copy. He asks for rows
like those of the request log, each once. Two champions of 100 trees: of the benchmarks' simulated business (20 numbers,
10 categories), and of the hotels' bookings (set TILTYARD_DATA_MIRROR; without it this one is left out, and that is
said). A copy agrees on a row where it decides as the champion does, at the score of the champion above which as many
rows lie as labels are positive. Measured on rows that nobody asked for; the median of three draws.

Ends with what follows for the defaults: how many rows the best copy needs for 90 % and for 95 %.
"""

import argparse
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other take longer than one, if others work

import numpy as np
import pandas as pd
import scoring

from tiltyard.train.encoding import Encoding

QUERIES = (100, 300, 500, 1_000, 3_000, 10_000, 30_000)
DECIMALS = (None, 3, 2, 1)
HELD_OUT = 10_000
DRAWS = 3
HOTEL = {
    "numeric": (
        "lead_time", "arrival_date_week_number", "stays_in_weekend_nights", "stays_in_week_nights", "adults",
        "previous_cancellations", "previous_bookings_not_canceled", "booking_changes", "days_in_waiting_list",
        "required_car_parking_spaces", "total_of_special_requests", "adr",
    ),
    "categorical": ("hotel", "meal", "market_segment", "distribution_channel", "customer_type", "deposit_type"),
}  # fmt: skip
Copy = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Champion:
    name: str
    matrix: Any
    """(rows, features), what may be asked for."""
    score: Any
    """(rows,), what the champion says of it."""
    threshold: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    needed: dict[tuple[str, int | None, int], int | None] = {}
    for champion in (simulated(), *hotels()):
        for kind, copy in (("tree", tree), ("boosted", boosted)):
            print(f"\n{champion.name}, copied by a {kind}: share of decisions that agree, %")
            print(f"{'answered with':16}" + "".join(f"{queries:>9,}" for queries in QUERIES))
            for decimals in DECIMALS:
                curve = [agreement(champion, copy, queries, decimals, options.draws) for queries in QUERIES]
                said = "all digits" if decimals is None else f"{decimals} decimals"
                print(f"{said:16}" + "".join(f"{100 * share:>9.1f}" for share in curve), flush=True)
                for percent in (90, 95):
                    reached = [queries for queries, share in zip(QUERIES, curve, strict=True) if share >= percent / 100]
                    key = (champion.name, decimals, percent)
                    found = [entry for entry in (needed.get(key), min(reached, default=None)) if entry is not None]
                    needed[key] = min(found, default=None)
    print("\nrows that the better copy needs, of those tried:")
    for (name, decimals, percent), queries in needed.items():
        said = "all digits" if decimals is None else f"{decimals} decimals"
        print(f"{name}, {said}: {percent} % {'not reached' if queries is None else f'at {queries:,}'}")


def agreement(champion: Champion, copy: Copy, queries: int, decimals: int | None, draws: int) -> float:
    shares = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(champion.score))
        asked, apart = order[: min(queries, len(order) - HELD_OUT)], order[-HELD_OUT:]
        answered = champion.score[asked] if decimals is None else champion.score[asked].round(decimals)
        copied = copy(champion.matrix[asked], answered).predict(champion.matrix[apart])
        shares.append(np.mean((copied >= champion.threshold) == (champion.score[apart] >= champion.threshold)))
    return float(np.median(shares))


def tree(matrix: Any, score: Any) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(min_samples_leaf=max(1, len(score) // 2_000), random_state=1).fit(matrix, score)


def boosted(matrix: Any, score: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    least = min(20, max(2, len(score) // 50))
    return HistGradientBoostingRegressor(max_iter=100, min_samples_leaf=least, random_state=1).fit(matrix, score)


# -- the champions --------------------------------------------------------------------------------


def fitted(name: str, frame: pd.DataFrame, label: Any, features: Any) -> Champion:
    """A champion trained on a part of the rows; the others may be asked for."""
    import xgboost

    matrix = Encoding.fit(frame, features).transform(frame)
    train = np.arange(len(frame)) % 5 == 0
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.05, n_jobs=1, random_state=1)
    model.fit(matrix[train], label[train])
    score = model.predict_proba(matrix[~train])[:, 1].astype(np.float64)
    return Champion(name, matrix[~train], score, float(np.quantile(score, 1 - label[train].mean())))


def simulated() -> Champion:
    scoring.ROWS = 60_000
    frame, label, features = scoring.made_up()
    return fitted("simulated business", frame, np.asarray(label), features)


def hotels() -> list[Champion]:
    mirror = os.environ.get("TILTYARD_DATA_MIRROR")
    path = Path(mirror or "", "hotels", "hotel_bookings.csv.zip")
    if not mirror or not path.is_file():
        print("hotel bookings are left out: set TILTYARD_DATA_MIRROR to a folder that holds them", file=sys.stderr)
        return []
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        rows = pd.read_csv(file)
    features = [scoring.Named(name, kind) for kind, names in HOTEL.items() for name in names]
    frame = rows[[feature.name for feature in features]].copy()
    for name in HOTEL["categorical"]:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return [fitted("hotel bookings", frame, rows["is_canceled"].to_numpy().astype(bool), features)]


if __name__ == "__main__":
    main()
