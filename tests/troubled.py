"""A portfolio in every kind of trouble, in the ledger alone, for the tests of pages: names as long as they may be, a
model called `index`, an owner with an emoji, and HTML in every text that data, people or libraries can bring."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import yaml

from tests.conftest import make_settings
from tiltyard import clock, ledger_tables
from tiltyard.answered.report import AuditedFigures, OnDefault, TierShare
from tiltyard.judge.arrival import ArrivalReport, ArrivalShares
from tiltyard.judge.night_figures import EvaluatedFigures, ScoredFigures
from tiltyard.prepare import data_incidents, ingest
from tiltyard.prepare.source_figures import SourceFigures
from tiltyard.rails import Rails
from tiltyard.records import (
    Broken,
    DataIncident,
    DataIncidentKey,
    Decision,
    DefaultTask,
    DriftSummary,
    Embargo,
    EstimatedVersion,
    EvidenceRecord,
    FallbackAuditSummary,
    FeaturesSummary,
    FilledFeature,
    Finding,
    Freshness,
    GovernorAction,
    GovernorSummary,
    Incident,
    Interval,
    LabelCounts,
    LandedFile,
    Measured,
    MeasuredVersion,
    Parity,
    Promotion,
    PromotionSummary,
    QuarantinedFile,
    ReplaySummary,
    ShadowSummary,
    Signal,
    TableState,
    TrainingSummary,
    Version,
    VersionFacts,
    VersionFigures,
    Watch,
)
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find, portfolio

EVIL = "\"><script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
NIGHT = date(2025, 5, 30)
"""The newest night."""
NIGHTS = 6
OWNER = "Zoë 🦊 <b>risk</b>"
LONG = "a" + "_very_long_name" * 3 + "_x"
NAMES = ("index", LONG, "churn")
FEATURES = tuple(f"feature_{place:02}{EVIL if place == 0 else ''}" for place in range(40))
DAY = timedelta(days=1)
SPINE = find(ROOT / "models", "churn").prediction.spine


def settings_of(folder: Path, postgres_url: str, count: int = 0) -> Settings:
    """A home with the three models, and `count` more of the kind; nothing is in its ledger, and there is no lake."""
    content = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text())
    models = folder / "models"
    for place, name in enumerate((*NAMES, *(f"churn_{number:03}" for number in range(count)))):
        home = models / name
        home.mkdir(parents=True)
        body = {**content, "owner": OWNER if place == 0 else content["owner"], "tier": 1 if place == 0 else 3}
        (home / "spec.yaml").write_text(yaml.safe_dump(body, allow_unicode=True), encoding="utf-8")
        (home / "card.md").write_text(f"# Card\n\n{EVIL}\n", encoding="utf-8")
    shutil.copy(ROOT / "models" / "portfolio.yaml", models)
    return make_settings(folder, postgres_url, models=models, sources=("subscription",))


def fill(rails: Rails) -> None:
    """Six nights of all models: the newest one failed for `index`, and held a table that all of them read."""
    names = [spec.name for spec in portfolio(rails.settings)]
    for back in reversed(range(NIGHTS)):
        night = NIGHT - back * DAY
        _source(rails, night)
        for name in names:
            _night(rails, name, night)
        _governed(rails, names, night)
    for name in names:
        _versions(rails, name)
        _asked(rails, name)
    reason = f"The lake is away. {EVIL}"
    rails.ledger.record_stage("index", NIGHT, "failed", ShadowSummary(night=NIGHT, reason=reason))
    detail = QuarantinedFile(source="subscription", night=NIGHT, file=f"payment/{EVIL[:20]}.csv", reason=EVIL).to_json()
    detail.pop("night")
    rails.ledger.add_event(ingest.QUARANTINED, "", NIGHT, detail)
    lies = rails.settings.quarantine / "subscription" / str(detail["file"])
    lies.parent.mkdir(parents=True, exist_ok=True)
    lies.write_text("x")
    key = DataIncidentKey("raw.payment", "amount", "went_null")
    data_incidents.record_change(rails, "subscription", NIGHT, key, "open", EVIL, NIGHT)
    assert data_incidents.of_source(rails, "subscription", NIGHT)[0] == DataIncident(
        table="raw.payment", column="amount", what="went_null", reason=EVIL, since=NIGHT
    )


def _source(rails: Rails, night: date) -> None:
    held = night == NIGHT
    states = [
        TableState(night=night, table=SPINE, state="held" if held else "published", snapshot=1,
                   good_night=NIGHT - DAY if held else night, since=night if held else None,
                   reason=EVIL if held else None, cause="raw.payment" if held else None),
        TableState(night=night, table="raw.payment", state="held" if held else "published", snapshot=1,
                   since=night if held else None, reason=EVIL if held else None, cause="raw.payment" if held else None),
    ]  # fmt: skip
    summary = FeaturesSummary(
        night=night, snapshot=1, checks=9, critical=(EVIL,) if held else (), warnings=(EVIL,), published=("raw.login",),
        unpublished=tuple(state for state in states if not state.is_published),
    )  # fmt: skip
    rails.ledger.publish(states, night, "done", summary, "subscription")
    latency = Embargo(
        table="features.ftr_customer__payments", kind="view", nights=28, rows=9, observed_rows=9, untimed=0,
        promised_p99_s=None, claimed_p99_s=1.0, observed_p99_s=2.0, observed_max_s=3.0, missed_nights=2, late_rows=3,
        verdict="late",
    )  # fmt: skip
    landed = LandedFile(file=f"payment/{EVIL}.csv", rows=55, landed_at=clock.midnight(night))
    figures = SourceFigures(
        freshness={"payment": Freshness(newest=clock.midnight(night), age_hours=0.0)}, latency=(latency,), files=99,
        rows=5_500, deliveries=(landed,),
    )  # fmt: skip
    rails.ledger.chronicle.keep("source", "subscription", night, figures)


def _night(rails: Rails, name: str, night: date) -> None:
    ledger, alarm = rails.ledger, night > NIGHT - 3 * DAY
    figures = {
        number: VersionFigures(role=role, matured=900, brier=0.08 + int(number) / 100, brier_low=0.07, brier_high=0.1)
        for number, role in (("1", "champion"), ("2", "challenger"))
    }
    counts = LabelCounts(matured=900, immature=90, early=3)
    shadow = ShadowSummary(
        night=night, rows=90, roles={1: "champion", 2: "challenger"}, tiers={"champion": 88, "safe_default": 2},
        reasons={EVIL: 2}, note=EVIL, counts=counts, metrics=figures, default_loss=0.11, unanswered={night: 2},
    )  # fmt: skip
    ledger.record_stage(name, night, "done", shadow)
    measured = {number: MeasuredVersion.of(own.to_json() | {"log_loss": 0.3}) for number, own in figures.items()}
    estimate = EstimatedVersion(
        role="champion", rows=90, is_calibrated=True, calibration_rows=900, brier=0.1, brier_low=0.09, brier_high=0.11,
        log_loss=0.3, auc=0.8, positive_rate=0.1,
    )  # fmt: skip
    shares = ArrivalShares(labels=(0.5, 1.0), positives=(), negatives=())
    arrived = ArrivalReport(half_after=0, most_after=1, waiting_rows=90, waiting_cohorts=2, last_arrived=night,
                            curve=shares, incidents=())  # fmt: skip
    slices = {number: {f"plan={EVIL}": own} for number, own in measured.items()}
    evaluated = EvaluatedFigures(metrics=measured, slices=slices, estimated={"1": estimate}, label_arrival=arrived)
    ledger.chronicle.keep("model", name, night, evaluated)
    filled = {1: dict.fromkeys(FEATURES, 0.5)}
    ledger.chronicle.keep("model", name, night, ScoredFigures(examples={"champion": EVIL}, filled=filled))
    kept = AuditedFigures(
        audited=night, on_default=OnDefault(since=NIGHT - 4 * DAY, nights=4, share=0.9),
        shares=(TierShare(channel="nightly", tier="safe_default", reason=EVIL, answers=2, share=0.02),),
    )  # fmt: skip
    ledger.chronicle.keep("model", name, night, kept)
    ledger.record_stage(name, night, "done", FallbackAuditSummary(night=night, answers=90))
    signals = tuple(
        Signal("feature", column, "ftr_customer__payments", "wasserstein", 0.3, 0.1, alarm, note=EVIL)
        for column in FEATURES
    )
    reasons = (EVIL, "; ".join(FEATURES))
    drift = DriftSummary(
        night=night, model=name, version=1, verdict="alarm" if alarm else "steady", alarm=alarm, reasons=reasons,
        evidence=400.0, threshold=365.0, harm_reason=EVIL, drifted=FEATURES,
        broken=(Broken("raw.payment", EVIL, EVIL),),
    )  # fmt: skip
    ledger.record_stage(name, night, "done", drift)
    ledger.add_finding(
        Finding(model=name, night=night, tier=1, owner=OWNER, champion=1, challengers=(2,), alarm=alarm,
                signals=(*signals, Signal("performance", "brier", None, "brier", None, None, False, note=EVIL)))
    )  # fmt: skip
    verdict = "promote" if night == NIGHT else "hold"
    for challenger in (2, 3):
        ledger.add_decision(
            Decision(model=name, night=night, challenger=challenger, champion=1, verdict=verdict, reasons=(EVIL,),
                     evidence=EvidenceRecord(model=name, night=night, challenger=challenger, matured=challenger))
        )  # fmt: skip
    ledger.record_stage(
        name, night, "done",
        PromotionSummary(night=night, model=name, verdict=verdict, challenger=2, champion=1, reasons=(EVIL,),
                         needs_approval=name == "index", page=f"promotion/{name}/{night}-v2.html"),
    )  # fmt: skip


def _governed(rails: Rails, names: list[str], night: date) -> None:
    is_held = night >= NIGHT - DAY
    incident = Incident("raw.payment", "broken", tuple(names), (EVIL,), EVIL, NIGHT - DAY)
    rails.ledger.set_incidents(night, [incident] if is_held else [])
    action = (
        GovernorAction(decision="incident", reasons=(EVIL,), incident="raw.payment")
        if is_held
        else GovernorAction(decision="steady", reasons=(EVIL,))
    )
    rails.ledger.record_stage("", night, "done", GovernorSummary(night=night, actions=dict.fromkeys(names, action)))


def _versions(rails: Rails, name: str) -> None:
    for number in (1, 2, 3):
        night = NIGHT - (20 - number) * DAY
        loss = Interval(0.08, 0.07, 0.09)
        facts = VersionFacts(
            frame="f" * 64, rows=1_000 * number, start="2025-01-01", end="2025-05-01", snapshot=1, spec="s" * 64,
            seed=7, trials=2, features=FEATURES if number < 3 else FEATURES[:-1],
            filled=tuple(FilledFeature(column, 0.9, column == FEATURES[1]) for column in FEATURES),
            params={EVIL: float(number), "depth": 3.0},
            metrics=Measured(rows=90, brier=loss, light=Measured(brier=loss)),
            latency_ms=0.5, size_mb=1.5, parity=Parity(heavy=1e-7), reasons=(EVIL,), git_commit="c" * 40,
        )  # fmt: skip
        rails.ledger.add_version(
            Version(model=name, version=number, night=night, inputs=f"{name}{number}", run_id=f"{EVIL}{number}",
                    digests={}, facts=facts, requested_by=EVIL)
        )  # fmt: skip
        replay = ReplaySummary(verdict="pass", rows=90, tested=80)
        trained = TrainingSummary(night=night, model=name, version=number, replay=replay)
        rails.ledger.record_stage(name, night, "done", trained)
    rails.ledger.record_stage(
        name, NIGHT - 2 * DAY, "stopped", TrainingSummary(night=NIGHT, model=name, reason=EVIL, requested_by=EVIL)
    )
    first = NIGHT - 15 * DAY
    rails.ledger.claim_promotion(
        Promotion(model=name, version=1, night=first, requested_by=EVIL, approved_by=f"ann {EVIL}", approval={})
    )
    rails.ledger.claim_promotion(
        Promotion(model=name, version=2, night=first + DAY, replaced=1, requested_by="x", approval={})
    )
    evidence = EvidenceRecord(model=name, night=first + 2 * DAY)
    rails.ledger.add_watch(
        Watch(model=name, night=first + 2 * DAY, champion=2, previous=1, verdict="rollback", reasons=(EVIL,),
              evidence=evidence)
    )  # fmt: skip
    rails.ledger.request_retrain(name, NIGHT, [EVIL])
    rails.ledger.add_event("corrupt_artifact", name, NIGHT, {"by": EVIL, "file": EVIL})


def _asked(rails: Rails, name: str) -> None:
    rails.ledger.open_default_task(
        DefaultTask(model=name, opened=NIGHT, since=NIGHT - 3 * DAY, repeats=None, facts={"reasons": {EVIL: 1.0}})
    )


def years_of_nights(rails: Rails, name: str, nights: int) -> None:
    """So many nights before those of a model, each like the first: what is kept of them costs no page anything."""
    runs, decided = ledger_tables.stage_run, ledger_tables.decision
    first = NIGHT - (NIGHTS - 1) * DAY
    with rails.ledger.engine.begin() as connection:
        for table in (runs, decided):
            own = connection.execute(table.select().where(table.c.model == name, table.c.night == first)).mappings()
            rows = [dict(row) for row in own]
            for back in range(1, nights + 1):
                connection.execute(table.insert(), [{**row, "night": first - back * DAY} for row in rows])
