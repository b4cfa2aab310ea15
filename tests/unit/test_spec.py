"""Specs: what loads, and what a person reads when one does not."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tiltyard import spec, target
from tiltyard.errors import BadInput
from tiltyard.settings import ROOT, Settings

GOOD = (ROOT / "models" / "sla_breach" / "spec.yaml").read_text()


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(text)
    return folder


def test_every_spec_of_the_portfolio_loads_and_is_short() -> None:
    specs = spec.load_all(ROOT / "models")
    assert [one.name for one in specs] == sorted(one.name for one in specs)
    assert "sla_breach" in [one.name for one in specs]
    for one in specs:
        folder = ROOT / "models" / one.name
        assert len((folder / "spec.yaml").read_text().splitlines()) <= 60
        assert (folder / "card.md").read_text().strip()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("horizon: 10d", "horizn: 10d", "unknown field"),
        ("horizon: 10d", "horizon: ten days", "not a duration"),
        ("alpha: 0.05", "alpha: 5", "less than 0.5"),
        ("spine: spn_ticket_opened", "spine: spn_x; drop table t", "write spn_<what>"),
        ("ftr_group__load", "group_load", "write ftr_<entity>__<topic>"),
        ("class: xgboost.XGBClassifier", "class: os.system", "xgboost.XGBClassifier"),
        ("tier: 2 ", "tier: 9 ", "1, 2 or 3"),
        ("every: 1d", "every: 7d", "7d is no night"),
        ("ftr_group__load", "ftr_group__answers", "ends in __answers"),
    ],
)
def test_a_typo_fails_at_load_with_file_and_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    line = GOOD[: GOOD.index(old)].count("\n") + 1
    folder = write(tmp_path / "sla_breach", GOOD.replace(old, new))
    with pytest.raises(BadInput) as caught:
        spec.load(folder)
    message = str(caught.value)
    assert words in message
    assert f"spec.yaml:{line}: " in message


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "sla_breach", GOOD.replace("owner: service-desk\n", ""))
    with pytest.raises(BadInput, match="owner: this field is missing"):
        spec.load(folder)


def test_yaml_that_is_none_names_the_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "broken", "entity: ticket\nowner: [a\ntier: 2\n")
    with pytest.raises(BadInput, match=r"spec.yaml:2: not readable as YAML .* before line 3"):
        spec.load(folder)


def test_a_list_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    for text in ("", "- 1\n"):
        with pytest.raises(BadInput, match="a spec is a mapping"):
            spec.load(write(tmp_path / "odd", text))
    with pytest.raises(BadInput, match="There is no model 'nothing'"):
        spec.load(tmp_path / "nothing")


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"the models are: .*sla_breach"):
        spec.find(ROOT / "models", "sla_braech")
    with pytest.raises(BadInput):
        spec.find(ROOT / "models", "../models/sla_breach")


def test_the_name_is_the_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "other", "name: sla_breach\n" + GOOD)
    with pytest.raises(BadInput, match="the folder is the name"):
        spec.load(folder)


def test_the_digest_is_of_the_promise_not_of_its_spelling(tmp_path: Path) -> None:
    one = spec.load(write(tmp_path / "a" / "sla_breach", GOOD))
    content = yaml.safe_load(GOOD)
    reordered = spec.load(write(tmp_path / "b" / "sla_breach", yaml.safe_dump(dict(reversed(content.items())))))
    changed = spec.load(write(tmp_path / "c" / "sla_breach", GOOD.replace("horizon: 10d", "horizon: 11d")))
    assert one.digest == reordered.digest != changed.digest


def test_the_schema_for_editors_takes_the_durations_that_a_spec_is_written_in() -> None:
    schema = spec.json_schema()
    assert "name" not in schema["properties"]
    assert schema["$defs"]["Label"]["properties"]["horizon"]["type"] == "string"


def test_only_models_of_active_sources_run(tmp_path: Path) -> None:
    write(tmp_path / "models" / "sla_breach", GOOD)
    write(tmp_path / "models" / "other", GOOD.replace("source: incident", "source: elsewhere"))
    active = spec.portfolio(Settings(home=tmp_path, models=tmp_path / "models"))
    assert [one.name for one in active] == ["sla_breach"]
    both = spec.portfolio(Settings(home=tmp_path, models=tmp_path / "models", sources="incident, elsewhere"))
    assert [one.name for one in both] == ["other", "sla_breach"]


def test_a_feature_view_is_keyed_by_its_entity() -> None:
    assert spec.feature_key("ftr_caller__history") == "caller_id"
    assert spec.feature_key("ftr_cost_center__load") == "cost_center_id"


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ("", "the metric cost needs gate.cost"),
        (", cost: {false_positive: 0, false_negative: 0}", "prices no error"),
        (", cost: {false_positive: 1, false_negative: 2, true_positive: 3}", "is it swapped"),
        (", cost: {false_positive: 1, false_negative: 2, true_negative: 2}", "is it swapped"),
        (", cost: {false_positive: 1, false_negative: 2, true_positive: 2, true_negative: 1}", "is it swapped"),
        (", cost: {false_positive: -1, false_negative: 2}", "greater than or equal to 0"),
        (", cost: {false_positive: .inf, false_negative: 2}", "finite number"),
        (", cost: {false_positive: 1.0e+308, false_negative: 2}", "less than or equal to 1000000000000"),
        (", cost: {false_positive: .nan, false_negative: 2}", "greater than or equal to 0|finite number"),
    ],
)
def test_a_cost_matrix_that_prices_no_decision_is_refused(tmp_path: Path, cost: str, words: str) -> None:
    folder = write(tmp_path / "sla_breach", GOOD.replace("metric: brier", f"metric: cost{cost}"))
    with pytest.raises(BadInput, match=words):
        spec.load(folder)


def test_an_error_that_costs_nothing_may_stand_beside_one_that_does(tmp_path: Path) -> None:
    text = GOOD.replace("metric: brier", "metric: cost, cost: {false_positive: 0, false_negative: 2}")
    cost = spec.load(write(tmp_path / "sla_breach", text)).gate.cost
    assert cost is not None
    assert cost.false_negative == 2


def test_a_retrain_by_age_is_no_sooner_than_the_cooldown(tmp_path: Path) -> None:
    text = f"{GOOD}\nretrain: {{every: 28d, after_matured: 10000}}\n"
    rule = spec.load(write(tmp_path / "sla_breach", text)).retrain
    assert (rule.every, rule.after_matured) == (timedelta(days=28), 10_000)
    for every, words in (
        ("3d", r"retrain.every is 3d, and drift.cooldown lets 7d pass between two retrains"),
        ("12h", r"spec.yaml:\d+: retrain.every: 12h is shorter than a night; write 1d or more"),
    ):
        with pytest.raises(BadInput, match=words):
            spec.load(write(tmp_path / every / "sla_breach", text.replace("28d", every)))


# -- a number instead of a yes or no --------------------------------------------------------------

NUMBER = """
entity: customer
owner: subscriptions
tier: 3
source: subscription
prediction: {spine: spn_customer_reviewed, features: [ftr_customer__activity]}
label: {table: lbl_logins, bounds: [0, 6], horizon: 3d}
estimator: {class: xgboost.XGBRegressor}
light: {class: sklearn.linear_model.Ridge}
gate: {metric: absolute_error}
fallback: {safe_default: 3}
"""


def test_a_label_with_bounds_is_a_number(tmp_path: Path) -> None:
    number = spec.load(write(tmp_path / "logins", NUMBER))
    assert (number.target, number.target.measure) == (target.Bounded((0, 6)), "absolute_error")
    assert (number.target.scaled(0.0), number.target.scaled(3.0), number.target.scaled(6.0)) == (0, 0.5, 1)
    assert "positive" not in number.model_dump(mode="json", by_alias=True)["label"]
    assert spec.Spec(**number.model_dump(mode="json", by_alias=True)) == number
    other = spec.load(write(tmp_path / "wider" / "logins", NUMBER.replace("[0, 6]", "[0, 7]")))
    assert other.recipe != number.recipe


def test_a_number_whose_bounds_nobody_says_is_a_promise_of_its_own(tmp_path: Path) -> None:
    opened = spec.load(write(tmp_path / "logins", NUMBER.replace("bounds: [0, 6]", "kind: number")))
    assert not opened.target.is_learned and opened.model_dump(mode="json")["label"]["kind"] == "number"
    assert spec.Spec(**opened.model_dump(mode="json", by_alias=True)) == opened
    learned = opened.bounded((0.0, 9.0))
    assert (learned.target.bounds, learned.digest, opened.target.is_learned) == ((0, 9), opened.digest, False)


def test_a_label_without_bounds_is_the_promise_that_it_was(tmp_path: Path) -> None:
    classifier = spec.load(write(tmp_path / "sla_breach", GOOD))
    kind = classifier.target
    assert (kind, kind.bounds, kind.measure, kind.scaled(0.3)) == (target.Binary(), (0, 1), "brier", 0.3)
    assert set(classifier.model_dump(mode="json")["label"]) == {"table", "positive", "horizon", "delay"}


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("bounds: [0, 6]", "bounds: [0, 6], positive: true", "label", "has no positive; take one of the two out"),
        ("bounds: [0, 6]", "bounds: [6, 0]", "label", "bounds go from low to high"),
        ("bounds: [0, 6]", "bounds: [0, .inf]", "bounds", "finite number"),
        ("xgboost.XGBRegressor", "xgboost.XGBClassifier", "estimator", "so class is xgboost.XGBRegressor"),
        ("sklearn.linear_model.Ridge", "sklearn.linear_model.LogisticRegression", "light", "so class is sklearn"),
        ("metric: absolute_error", "metric: brier", "gate", "write metric: absolute_error"),
        ("metric: absolute_error", "alpha: 0.05", "gate", "write metric: absolute_error"),
        ("gate: {metric: absolute_error}", "", "gate", "write metric: absolute_error"),
        ("safe_default: 3", "safe_default: 7", "fallback", "safe_default is 7, which is not within label.bounds"),
        ("bounds: [0, 6], ", "", "gate", "the metric absolute_error needs label.bounds"),
    ],
)
def test_the_parts_of_a_spec_are_for_one_kind_of_label(
    tmp_path: Path, old: str, new: str, field: str, words: str
) -> None:
    text = NUMBER.replace(old, new)
    with pytest.raises(BadInput) as caught:
        spec.load(write(tmp_path / "logins", text))
    message = str(caught.value)
    assert words in message
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith(field) or field in line]
    assert not lines or any(f"spec.yaml:{number}: " in message for number in lines)


def test_a_probability_served_by_default_lies_between_0_and_1(tmp_path: Path) -> None:
    text = GOOD.replace(yaml_line(GOOD, "fallback"), "fallback: {safe_default: 1.5}")
    with pytest.raises(BadInput, match=r"safe_default is 1.5, which is not within \[0, 1\], it is a probability"):
        spec.load(write(tmp_path / "sla_breach", text))


def yaml_line(text: str, field: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{field}:"))


@pytest.mark.parametrize(
    ("written", "instead_of", "line"),
    [
        ("owner service-desk", "owner: service-desk", 2),
        ('owner: "service-desk', "owner: service-desk", 2),
        ("features: [ftr_ticket__intake", "features: [ftr_ticket__intake]", 4),
    ],
)
def test_text_that_does_not_end_is_named_by_the_line_where_it_begins(
    tmp_path: Path, written: str, instead_of: str, line: int
) -> None:
    """The parser notices on a later line, which is right."""
    text = "entity: ticket\nowner: service-desk\nprediction:\n  features: [ftr_ticket__intake]\n  every: 1d\ntier: 2\n"
    (tmp_path / "spec.yaml").write_text(text.replace(instead_of, written))
    with pytest.raises(BadInput, match=rf"spec.yaml:{line}: not readable as YAML \(.* before line \d\)"):
        spec.load(tmp_path)
