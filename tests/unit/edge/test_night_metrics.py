"""Prometheus is told what the page shows, and the rules ask for what there is."""

import re
from datetime import date

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.edge.test_board import NIGHT, SPEC, done, promoted, published
from tiltyard import clock
from tiltyard.edge import board, night_metrics
from tiltyard.rails import Rails
from tiltyard.records import TableState
from tiltyard.serve.metrics import Metrics
from tiltyard.settings import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"


def samples(rails: Rails) -> dict[tuple[str, ...], float]:
    """(name, values of its labels by their names) → value."""
    page = night_metrics.text(board.read(rails, [SPEC], clock.now())).decode()
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
    table = SPEC.prediction.features[0]
    after = date.fromordinal(NIGHT.toordinal() + 1)
    held = TableState(table=table, night=after, state="held", since=after, reason="no", cause=table)
    published(rails, held, night=after)
    told = samples(rails)
    assert told["tiltyard_tables_not_good", "subscription"] == 1
    assert told["tiltyard_waiting_for_a_person", "table"] == 1
    assert told["tiltyard_models", "held", "3"] == 1


def test_the_rules_ask_for_metrics_and_labels_that_there_are(rails: Rails) -> None:
    published(rails)
    done(rails)
    promoted(rails)
    page = night_metrics.text(board.read(rails, [SPEC], clock.now())).decode()
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
