"""Leakage found by evidence: which columns of the naive stagings are named, and what the honest ones raise.

Builds each data set twice through the rails (tests/naive), weighs both training frames and prints the table of
docs/reference/figures-leakage.md, then what was named, then seconds on wide and long frames. Needs the data sets:
TILTYARD_DATA_MIRROR or their public homes.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.naive import staging  # noqa: E402
from tiltyard import postgres  # noqa: E402
from tiltyard.leak import evidence  # noqa: E402
from tiltyard.leak.evidence import Sample, Weighed  # noqa: E402
from tiltyard.settings import Settings  # noqa: E402


def weigh(source: str, *, naive: bool) -> tuple[Sample, Weighed, float]:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        settings = Settings(home=Path(folder), sources=(source,))
        try:
            sample, _ = staging.sample(settings, source, naive=naive)
        finally:
            postgres.stop(settings)
    start = time.process_time()
    weighed = evidence.weigh(sample)
    return sample, weighed, time.process_time() - start


def honest_frame(rows: int, columns: int, seed: int) -> pd.DataFrame:
    """Numbers, counts, categories and gaps, some of which tell the label a little."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=rows)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    made: dict[str, object] = {
        "asked_at": start + pd.to_timedelta(np.sort(rng.uniform(0, 365, rows)), unit="D"),
        "label": rng.random(rows) < 1 / (1 + np.exp(1.5 - risk)),
    }
    for number in range(columns):
        noisy = rng.normal() * risk / 2 + rng.normal(size=rows)
        made[f"x{number}"] = (
            noisy,
            np.round(noisy),
            np.where(rng.random(rows) < 0.1, np.nan, noisy),
            np.array(list("abcdefgh"))[np.clip(noisy + 4, 0, 7).astype(int)],
        )[number % 4]
    return pd.DataFrame(made)


def main() -> None:
    named_in_all = lying_in_all = others_in_all = 0
    told = []
    print(
        "| data set | rows | features | lie | named | missed | others named | precision | honest: critical, warning |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for source in staging.SOURCES:
        sample, weighed, seconds = weigh(source, naive=True)
        known = staging.lies(source)
        lying = known["lies"]
        named = {finding.feature for finding in weighed.suspicions}
        right, wrong = named & lying, named - lying - known["doubtful"]
        _, honest, honest_seconds = weigh(source, naive=False)
        loud = [finding.severity for finding in honest.suspicions]
        print(
            f"| {source} | {len(sample.frame):,} | {len(sample.features)} | {len(lying)} | {len(right)} | "
            f"{', '.join(sorted(lying - named)) or '–'} | {', '.join(sorted(named - lying)) or '–'} | "
            f"{len(right) / max(len(right) + len(wrong), 1):.2f} | {loud.count('critical')}, {loud.count('warning')} |",
            flush=True,
        )
        named_in_all, lying_in_all, others_in_all = (
            named_in_all + len(right), lying_in_all + len(lying), others_in_all + len(wrong),
        )  # fmt: skip
        told += [(source, finding) for finding in weighed.suspicions]
        told += [(f"{source}, honest", finding) for finding in honest.suspicions]
        print(f"  weighed in {seconds:.1f} s and {honest_seconds:.1f} s of CPU", file=sys.stderr)
    precision = named_in_all / max(named_in_all + others_in_all, 1)
    print(f"\nprecision {precision:.2f}, recall {named_in_all / lying_in_all:.2f} ({named_in_all} of {lying_in_all})\n")
    for source, finding in told:
        print(f"{source:22} {finding.severity:8} {finding.kind:25} {finding.feature:28} {finding.evidence}")
    for rows, columns in ((200_000, 50), (10_000, 5_000)):
        made = honest_frame(rows, columns, 1)
        start = time.process_time()
        weighed = evidence.weigh(Sample(made, "label", "asked_at"))
        print(f"{rows} rows × {columns} columns: {time.process_time() - start:.1f} s of CPU, "
              f"{len(weighed.suspicions)} findings")  # fmt: skip


if __name__ == "__main__":
    main()
