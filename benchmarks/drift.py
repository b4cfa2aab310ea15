"""Drift: the nightly screen of a portfolio, beside Evidently.

1. One night of 100 models × 30 features with 63 nights of training and 120 nights of production behind them: judging
   all of them from their kept profiles (evidence, effects, broken data, harm), in seconds.
2. At an equal statistic: seconds per column of the screen's distance (counting the raw window into the cells, then the
   distance) beside Evidently's DataDriftPreset on the same rows with the same methods, HTML page and all, as a person
   would get it; and beside its bare verdict without figures.
3. How far the distance from histograms is from Evidently's exact one.

Exit code 1 when a night takes more than 10 s, the preset is less than 40 times slower, or a distance is off by more
than 0.01.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from streams import simulate

from tiltyard.govern import change
from tiltyard.govern.raw import Raw
from tiltyard.portfolio_rules import Budget
from tiltyard.spec import DriftPolicy
from tiltyard.train import profile

MODELS, NIGHTS = 100, 120
SLOWEST, TIMES, OFF = 10.0, 40, 0.01


def timed(work: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Seconds of the quickest of `repeat` runs, and what the last one gave."""
    best, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def portfolio() -> float:
    """Seconds to judge one night of all models; their references and profiles are in memory."""
    streams = [simulate(seed, NIGHTS, rows=60) for seed in range(10)]  # ten histories, each judged ten times
    threshold = Budget().nights_between(MODELS)
    policy = DriftPolicy()
    night = int(streams[0].seen.nights[-1])
    truths = [stream.truth(night) for stream in streams]

    def judge_all() -> None:
        for number in range(MODELS):
            change.floors.cache_clear()  # a model knows nothing of another's reference
            stream, truth = streams[number % 10], truths[number % 10]
            standing = change.Standing(1, int(stream.seen.nights[0]))
            change.compare(
                stream.reference, stream.seen, truth, policy, stream.promise, threshold, 1, night, standing=standing
            )

    return timed(judge_all, 2)[0]


def frame(rows: int, shift: float, seed: int) -> pd.DataFrame:
    """Twenty numeric columns, ten categorical ones; `shift` moves ten and five of them."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for number in range(20):
        columns[f"number_{number}"] = random.normal(shift if number < 10 else 0, 1, rows)
    for number in range(10):
        chances = np.ones(8)
        chances[0] += 8 * shift if number < 5 else 0
        columns[f"category_{number}"] = random.choice(list("abcdefgh"), rows, p=chances / chances.sum())
    return pd.DataFrame(columns)


def main() -> int:
    warnings.filterwarnings("ignore")
    night = portfolio()
    reference, current = frame(2000, 0.0, 1), frame(1000, 0.5, 2)
    names = list(reference)
    cells = {name: profile.cut(reference[name], numeric=name.startswith("number")) for name in names}
    kept = {name: profile.count(cells[name], reference[name]) for name in names}

    def screen() -> list[float]:
        return [
            float(profile.distance(cells[name], kept[name], profile.count(cells[name], current[name])))
            for name in names
        ]

    raw = Raw()
    for name in names:
        raw.add(name, "numeric" if cells[name].is_numeric else "categorical", reference[name], current[name], 0.1)
    ours, values = timed(screen)
    counted = {name: profile.count(cells[name], current[name]) for name in names}
    bare, _ = timed(lambda: [profile.distance(cells[name], kept[name], counted[name]) for name in names])

    start = time.perf_counter()
    from evidently import Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    imported = time.perf_counter() - start
    methods = {"num_method": "wasserstein", "cat_method": "jensenshannon"}
    data = raw.datasets(names)
    preset, _ = timed(lambda: Report([DataDriftPreset(**methods)]).run(*data).get_html_str(as_iframe=False), 2)
    verdict, moved = timed(lambda: raw.evidently_drifted(names), 2)
    metrics = [ValueDrift(column=name, method=change.STATISTIC[cells[name].is_numeric]) for name in names]
    theirs = [float(result["value"]) for result in Report(metrics).run(*data).dict()["metrics"]]
    off = float(np.abs(np.array(values) - np.array(theirs)).max())
    agree = {name for name, value in zip(names, values, strict=True) if value >= 0.1} == set(moved)

    print(f"one night of {MODELS} models × 30 features: {night:.2f} s, {night / MODELS * 1e3:.1f} ms a model\n")
    per = 1e3 / len(names)
    print(f"{len(names)} columns, a window of 1,000 rows, training of 2,000    ms a column")
    print(f"  the screen: counting and distance           {ours * per:10.3f}")
    print(f"  the distance alone, counts kept             {bare * per:10.3f}")
    print(f"  Evidently's preset with its page            {preset * per:10.3f}   {preset / ours:6.0f} × the screen")
    print(f"  Evidently's verdict, no figures             {verdict * per:10.3f}   {verdict / ours:6.0f} × the screen")
    print(f"  importing Evidently, once: {imported:.1f} s\n")
    print(
        f"largest difference to Evidently's distance: {off:.4f}; the same columns over 0.1: {'yes' if agree else 'NO'}"
    )
    return 0 if night <= SLOWEST and preset / ours >= TIMES and off <= OFF and agree else 1


if __name__ == "__main__":
    sys.exit(main())
