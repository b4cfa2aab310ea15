"""Leakage found by evidence, and by what is said of columns.

By evidence: which columns of the naive stagings are named, and what the honest ones raise.

Builds each data set twice through the rails (tests/naive), weighs both training frames and prints the table of
docs/reference/figures-leakage.md, then what was named, then seconds on wide and long frames. Needs the data sets:
TILTYARD_DATA_MIRROR or their public homes.

By what is said: `--declared` makes up clinics (tests/clinic.py), a dbt project and a lake of each, and prints how many
leaks through a column that is `written_later` the gate before training stops, how many honest uses of one it accuses,
and how many planned columns; and the same where nothing is said. `--seeds 5` is how many clinics, a fifth of them
without a word.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import clinic  # noqa: E402
from tests.naive import staging  # noqa: E402
from tiltyard import postgres  # noqa: E402
from tiltyard.leak import evidence  # noqa: E402
from tiltyard.leak.evidence import Sample, Weighed  # noqa: E402
from tiltyard.settings import Settings  # noqa: E402
from tiltyard.suites import CheckReport  # noqa: E402

RULE = "no_feature_before_it_was_written"
"""What the check is called that needs no statistics."""


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


def declared(seeds: int) -> None:
    """What the gate says of every shape of tests/clinic.py, with and without what is said of the columns."""
    print("| said | leaks stopped | by what is said | honest uses accused | planned accused, of them critical |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name:
        server = Settings(home=Path(name) / "server")
        address = postgres.server_url(server).render_as_string(hide_password=False)
        try:
            for said, number in ((True, seeds), (False, max(1, seeds // 5))):
                leaks, honest, planned = (
                    [report for reports in all_reports for report in reports]
                    for all_reports in zip(
                        *(_clinic(Path(name) / f"{seed}-{said}", address, seed, said=said) for seed in range(number)),
                        strict=True,
                    )
                )
                stopped = sum(bool(report.critical_failures) for report in leaks)
                by_rule = sum(RULE in {failure.name for failure in report.critical_failures} for report in leaks)
                accused = sum(bool(clinic.accusations(report)) for report in honest)
                plans = sum(bool(clinic.accusations(report)) for report in planned)
                critical = sum(bool(report.critical_failures) for report in planned)
                print(
                    f"| {'yes' if said else 'no'} | {stopped} of {len(leaks)} | {by_rule} of {len(leaks)} | "
                    f"{accused} of {len(honest)} | {plans} of {len(planned)}, {critical} |",
                    flush=True,
                )
        finally:
            postgres.stop(server)


def _clinic(folder: Path, address: str, seed: int, *, said: bool) -> list[list[CheckReport]]:
    """What the gate says of the leaks, the honest uses and the plans of one clinic."""
    folder.mkdir(parents=True)
    settings = Settings(home=folder / "home", database_url=address, database_prefix=f"c{seed}{said:d}_")
    with clinic.opened(settings, folder, seed, said=said) as rails:
        return [
            [clinic.judged(rails, folder, shape) for shape in shapes]
            for shapes in (clinic.LEAKS, clinic.HONEST, clinic.PLANNED)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--declared", action="store_true", help="only what is said of columns")
    parser.add_argument("--seeds", type=int, default=5, help="clinics that are made up")
    arguments = parser.parse_args()
    declared(arguments.seeds)
    if not arguments.declared:
        by_evidence()


def by_evidence() -> None:
    """The table of frames without write times, and what was named."""
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
