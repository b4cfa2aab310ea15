"""Drift: the pre-screen beside Evidently, on 30 columns × 1,000 rows against a reference of 2,000.

Prints seconds for the pre-screen with and without its noise floors, Evidently's verdict without figures, the page
that is kept, and Evidently's own preset with its HTML, which is what the page is compared with.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tiltyard import drift


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


def timed(work: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Seconds of the quickest of `repeat` runs, and what the last one gave."""
    best = float("inf")
    result = None
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    reference, current = frame(2000, 0.0, 1), frame(1000, 0.5, 2)
    kinds = {name: "numeric" if name.startswith("number") else "categorical" for name in reference}
    scores = pd.Series(np.random.default_rng(3).beta(2, 5, 2000))

    def prescreen() -> drift.Compared:
        return drift.compare(kinds, reference, current, reference_scores=scores, current_scores=scores[:1000])

    screen, compared = timed(prescreen)
    bare, _ = timed(
        lambda: [drift.distance(compared.kinds[c], compared.reference[c], compared.current[c]) for c in compared.tested]
    )
    start = time.perf_counter()
    from evidently import Report
    from evidently.presets import DataDriftPreset

    imported = time.perf_counter() - start
    near = [c for c in compared.tested if compared.value[c] >= drift.NEAR * compared.threshold[c]]
    verdict, _ = timed(lambda: drift.evidently_drifted(compared, near))
    page, text = timed(lambda: drift.draw(compared, "benchmark", 0.5))
    preset, _ = timed(
        lambda: (
            Report([DataDriftPreset()]).run(*drift.datasets(compared, compared.tested)).get_html_str(as_iframe=False)
        )
    )
    print(f"pre-screen, {len(compared.tested)} columns      {screen:7.3f} s  ({bare:.3f} s without noise floors)")
    print(f"Evidently's verdict, {len(near):2d} moved    {verdict:7.3f} s")
    print(f"the page that is kept         {page:7.3f} s  ({len(text) / 1e6:.1f} MB)")
    times = f"{preset / screen:.0f} × the pre-screen, {preset / bare:.0f} × its statistics"
    print(f"Evidently's preset with HTML  {preset:7.3f} s  = {times}")
    print(f"importing Evidently, once     {imported:7.3f} s")


if __name__ == "__main__":
    main()
