"""Prometheus is told what the page shows, and the rules ask for what there is."""

import json
import re
from datetime import date, timedelta

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.edge.test_board import NIGHT, SPEC, done, promoted, published
from tiltyard import clock
from tiltyard.edge import board, night_metrics
from tiltyard.rails import Rails
from tiltyard.records import (
    ChallengerDecision,
    Cost,
    GovernorAction,
    GovernorSummary,
    PromotionSummary,
    TableState,
    Usage,
)
from tiltyard.serve.metrics import Metrics
from tiltyard.settings import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "tiltyard.json"


def page_of(rails: Rails) -> str:
    return night_metrics.text(board.read(rails, [SPEC], clock.now()), night_metrics.beside(rails, [SPEC])).decode()


def samples(rails: Rails) -> dict[tuple[str, ...], float]:
    """(name, values of its labels by their names) → value."""
    page = page_of(rails)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_what_the_page_shows_is_told(rails: Rails) -> None:
    published(rails)
    done(rails)
    promoted(rails)
    told = samples(rails)
    assert told["tiltyard_models", "steady", "3"] == 1
    assert sum(value for (name, *_), value in told.items() if name == "tiltyard_models") == 1
    assert told["tiltyard_model_newest_night_seconds", "churn"] == clock.midnight(NIGHT).timestamp()
    assert told["tiltyard_model_champion", "churn"] == 1
    assert told["tiltyard_model_loss", "brier", "churn", "champion"] == 0.08
    assert told["tiltyard_model_loss", "brier", "churn", "safe_default"] == 0.1
    assert told["tiltyard_tables_not_good", "subscription"] == 0
    assert not [name for name, *_ in told if name in ("tiltyard_table_good_night_seconds", "tiltyard_gate_difference")]
    table = SPEC.prediction.features[0]
    after = date.fromordinal(NIGHT.toordinal() + 1)
    held = TableState(table=table, night=after, state="held", since=after, reason="no", cause=table)
    published(rails, held, night=after)
    told = samples(rails)
    assert told["tiltyard_tables_not_good", "subscription"] == 1
    assert told["tiltyard_waiting_for_a_person", "table"] == 1
    assert told["tiltyard_models", "held", "3"] == 1


def test_what_only_the_ledger_knows_is_told_as_well(rails: Rails) -> None:
    good, bad = SPEC.prediction.features[:2]
    before = NIGHT - timedelta(days=2)
    states = (
        TableState(table=good, night=NIGHT, state="published", snapshot=1),
        TableState(table=bad, night=NIGHT, state="held", since=NIGHT, good_night=before, reason="no", cause=bad),
    )
    published(rails, *states)
    done(rails)
    judged = ChallengerDecision(challenger=2, champion=1, verdict="hold", reasons=(), mean=0.01, low=-0.002, high=0.03)
    summary = PromotionSummary(night=NIGHT, model="churn", challenger=2, verdict="hold", decisions=(judged,))
    rails.ledger.record_stage("churn", NIGHT, "done", summary)
    steady, queued = (GovernorAction(decision=decision, reasons=()) for decision in ("steady", "queued"))
    actions = {"churn": queued, "other": steady, "third": steady}
    rails.ledger.record_stage("", NIGHT, "done", GovernorSummary(night=NIGHT, actions=actions))
    for name in ("churn", "other"):
        usage = Usage(cpu_s=1.5)
        rails.ledger.accounts.add([Cost(stage="shadow", name=name, night=NIGHT, usage=usage)])
    told = samples(rails)
    assert told["tiltyard_table_good_night_seconds", "published", good] == clock.midnight(NIGHT).timestamp()
    assert told["tiltyard_table_good_night_seconds", "held", bad] == clock.midnight(before).timestamp()
    assert told["tiltyard_governor_models", "steady"] == 2
    assert told["tiltyard_governor_models", "queued"] == 1
    assert told["tiltyard_gate_difference", "low", "churn", "hold"] == -0.002
    assert told["tiltyard_night_cpu_seconds", "shadow"] == 3.0


def test_the_rules_ask_for_metrics_and_labels_that_there_are(rails: Rails) -> None:
    published(rails)
    done(rails)
    promoted(rails)
    page = page_of(rails)
    families = {family.name for family in text_string_to_metric_families(page)}
    families |= {family.name for family in Metrics({}).registry.collect()}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 7
    for rule in rules:
        names = set(re.findall(r"\btiltyard_\w+", rule["expr"]))
        assert names and names <= families, rule["alert"]
        for state in re.findall(r'state=~?"([^"]+)"', rule["expr"]):
            assert {*state.split("|")} <= {*board.STATES}, rule["alert"]
        for kind in re.findall(r'kind="([^"]+)"', rule["expr"]):
            assert kind in board.Asked.__annotations__["kind"].__args__, rule["alert"]


def test_the_dashboard_draws_what_there_is(rails: Rails) -> None:
    page = page_of(rails)
    families = {family.name for family in text_string_to_metric_families(page)}
    families |= {family.name for family in Metrics({}).registry.collect()}
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    drawn: set[str] = set()
    for panel in panels:
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            names = set(re.findall(r"\btiltyard_\w+?(?=_bucket\b|_total\b|\b)", target["expr"]))
            assert names and names <= families, panel["title"]
            drawn |= names
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    nightly = {name for name in families if name.startswith("tiltyard_") and f"# TYPE {name} " in page}
    assert nightly <= drawn, "every gauge of the night has its panel"
