"""The governor on whole portfolios, over the lineage of the real dbt project: incidents, retrains and milliseconds.

One upstream break over 80 models, told by the freshness suite, seen only as missing values, or only as drift; and a
night of 300 models with alarms all over, two breaks and a shared shift. Beside each, what models that decide by
themselves would have done with the same findings. Exits 1 when the incidents or the retrains are not those that were
put in.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from tiltyard.govern.governor import GovernorOutcome, govern
from tiltyard.govern.history import Grant, ModelHistory, NightHistory
from tiltyard.govern.lineage import Lineage
from tiltyard.portfolio_rules import Portfolio
from tiltyard.prepare import transform
from tiltyard.records import Broken, Finding, Signal
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, load_all
from tiltyard.words import counted

NIGHT = date(2025, 2, 3)
REPEATS = 15
COLUMNS = {
    "churn": (("last_amount_eur", "ftr_customer__payments"), ("phone_logins_28d", "ftr_customer__activity")),
    "sla_breach": (("group_backlog", "ftr_group__load"), ("hour", "ftr_ticket__intake")),
    "flight_delay": (("wind", "ftr_airport__weather"), ("legs", "ftr_aircraft__legs")),
    "hotel_cancellation": (("lead_days", "ftr_booking__intake"), ("bookings", "ftr_week__load")),
    "customer_repurchase": (("orders", "ftr_buyer__orders"), ("returns", "ftr_buyer__returns")),
}
"""Of each model two columns that may move, with the views that they come from."""
LOGIN = Broken("raw.login", "device", "raw.login.device went null: 2511 of 2511 values are missing")


def copies(spec: Spec, number: int) -> list[Spec]:
    return [
        spec.model_copy(update={"name": f"{spec.name}_{place:03}", "tier": 1 + place % 3}) for place in range(number)
    ]


def finding(spec: Spec, *, moved: bool = False, second: bool = False, **values: object) -> Finding:
    """Thirty columns, of which the first or the second moved."""
    first, other = COLUMNS[spec.name.rsplit("_", 1)[0]]
    signals = [
        Signal("feature", first[0], first[1], "wasserstein", 0.9 if moved else 0.04, 0.1, moved, 300.0, 0.3),
        Signal("feature", other[0], other[1], "wasserstein", 0.7 if second else 0.03, 0.1, second, 200.0, 0.2),
    ]
    views = sorted(spec.prediction.features)
    signals += [
        Signal("feature", f"column_{place}", views[place % len(views)], "wasserstein", 0.02, 0.1, False, 1.0, 0.02)
        for place in range(28)
    ]
    parts: dict[str, object] = {"alarm": moved or second, "harm": "felt" if moved or second else "unknown"}
    parts |= {"evidence": 800.0, "threshold": 365.0, "signals": tuple(signals)}
    return Finding(spec.name, NIGHT, spec.tier, spec.owner, 1, (), **{**parts, **values})  # type: ignore[arg-type]


def alone(findings: list[Finding]) -> int:
    """Retrains of models that know nothing of each other and of missing values: every alarm that is felt."""
    return sum(finding.alarm and finding.harm == "felt" for finding in findings)


@dataclass
class Bench:
    """Nights of portfolios on the lineage of the real project, each held against what was put in."""

    manifest: dict[str, Any]
    """dbt's manifest."""
    wrong: int = 0
    """Number of nights on which something else came out."""

    def night(
        self,
        title: str,
        specs: list[Spec],
        findings: list[Finding],
        incidents: set[tuple[str, str, int]],
        retrains: int,
        history: NightHistory | None = None,
    ) -> None:
        """Govern a night, and print what came of it. `incidents`: (node, kind, number of models)."""
        begun = time.perf_counter()
        lineage = Lineage.of(self.manifest, specs)
        read = time.perf_counter() - begun
        policies = {spec.name: spec.drift for spec in specs}

        def work() -> GovernorOutcome:
            return govern(findings, lineage, history or NightHistory(NIGHT), policies, Portfolio())

        took, outcome = timed(work)
        opened = {(incident.node, incident.kind, len(incident.models)) for incident in outcome.incidents}
        is_right = opened == incidents and len(outcome.granted) == retrains
        self.wrong += not is_right
        listed = "; ".join(f"{kind} {node} over {number}" for node, kind, number in sorted(opened)) or "none"
        print(
            f"{title}: {counted(len(outcome.incidents), 'incident')}, {counted(len(outcome.granted), 'retrain')} "
            f"in {took * 1e3:.1f} ms "
            f"(lineage {read * 1e3:.1f} ms); by themselves {alone(findings)} retrains{'' if is_right else '  WRONG'}"
        )
        print(f"    {listed}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        Path(folder).chmod(0o755)
        settings = Settings(home=Path(folder) / "home")
        try:
            bench = Bench(transform.manifest(settings))
        finally:
            from tiltyard import postgres

            postgres.stop(settings)
    models = {spec.name: spec for spec in load_all(ROOT / "models")}
    of_one_kind(bench, copies(models["churn"], 80))
    of_all_kinds(bench, [spec for model in models.values() for spec in copies(model, 60)])
    return 1 if bench.wrong else 0


def of_one_kind(bench: Bench, churn: list[Spec]) -> None:
    """Nights of 80 models that read the same tables."""
    bench.night(
        "a column of 80 models goes null, and the freshness suite says so",
        churn,
        [finding(spec, moved=True, second=True, broken=(LOGIN,)) for spec in churn],
        {("raw.login", "broken", 80)},
        0,
    )
    gone = Signal("missing", "phone_logins_28d", "ftr_customer__activity", "missing_rise", 0.9, 0.2, True)
    bench.night(
        "the same, told to 30 models, to 30 only as missing values, to 20 only as drift",
        churn,
        [
            finding(spec, second=True, broken=(LOGIN,) if place < 30 else (), **missing(spec, gone, 30 <= place < 60))
            for place, spec in enumerate(churn)
        ],
        {("raw.login", "broken", 80)},
        0,
    )
    bench.night(
        "a unit changes, and nobody says so: 80 models drift, 30 of them alarm tonight",
        churn,
        [finding(spec, moved=True, alarm=place < 30) for place, spec in enumerate(churn)],
        {("ftr_customer__payments", "shared_shift", 80)},
        0,
    )
    bench.night("a quiet night of 80 models", churn, [finding(spec) for spec in churn], set(), 0)


def of_all_kinds(bench: Bench, portfolio: list[Spec]) -> None:
    """A night of 300 models of five families."""
    findings = []
    since: dict[tuple[str, str, str], date] = {}
    past: dict[str, ModelHistory] = {}
    for spec in portfolio:
        place, family = int(spec.name[-3:]), spec.name.rsplit("_", 1)[0]
        if family == "churn":
            findings.append(finding(spec, second=True, broken=(LOGIN,)))
        elif family == "hotel_cancellation":
            findings.append(finding(spec, moved=True))
        elif family == "flight_delay":
            empty = Broken("ftr_airport__weather", None, "ftr_airport__weather has no row of the night")
            findings.append(finding(spec, broken=(empty,)))
        else:  # alarms here and there, at different times: each model's own affair
            findings.append(finding(spec, moved=place % 4 == 0))
            if place % 4 == 0:
                since[spec.name, "feature", COLUMNS[family][0][0]] = NIGHT - timedelta(days=place)
                past[spec.name] = ModelHistory((Grant(NIGHT - timedelta(days=3), "pending"),) if place % 8 == 0 else ())
    bench.night(
        "300 models: a column null, a view without rows, a shift of one table, 30 alarms of their own",
        portfolio,
        findings,
        {
            ("raw.login", "broken", 60),
            ("ftr_airport__weather", "broken", 60),
            ("ftr_booking__intake", "shared_shift", 60),
        },
        Portfolio().trainings.per_night,
        NightHistory(NIGHT, past, since),
    )


def missing(spec: Spec, gone: Signal, here: bool) -> dict[str, object]:
    return {"signals": (gone, *finding(spec).signals)} if here else {}


def timed(work: Callable[[], GovernorOutcome]) -> tuple[float, GovernorOutcome]:
    """Seconds in the median of `REPEATS`, and what the last one gave."""
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        outcome = work()
        took.append(time.perf_counter() - begun)
    return median(took), outcome


if __name__ == "__main__":
    sys.exit(main())
