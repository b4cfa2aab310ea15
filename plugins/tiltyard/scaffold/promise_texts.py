"""What is promised of a model, as text: its spec, its card, the suites of its views, its exposure. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tiltyard.scaffold import naming
from tiltyard.scaffold.asked import KNOWN, LATELY_DAYS, Calendar, Facts, Question
from tiltyard.scaffold.model_texts import views
from tiltyard.scaffold.yaml_text import listed, mapping, number, prose, scalar
from tiltyard.spec import MIN_COVERAGE
from tiltyard.target import number_bounds
from tiltyard.words import counted


def promises(asked: Question, facts: Facts, nights: Calendar, why: str) -> dict[PurePosixPath, str]:
    """Path below the checkout → what stands there."""
    suites = PurePosixPath("expectations/features")
    written = {
        PurePosixPath("models") / asked.model / "spec.yaml": spec_text(promised(asked, facts), nights),
        PurePosixPath("models") / asked.model / "card.md": card(asked, facts, nights, why),
        suites / f"{asked.view(asked.entity, 'intake')}.yaml": intake_suite(asked, facts),
    }
    for column in asked.rates:
        entity = naming.entity_of(column)
        written[suites / f"{asked.view(entity, 'history')}.yaml"] = history_suite(asked, facts, entity)
    for column in asked.loads:
        entity = naming.entity_of(column)
        written[suites / f"{asked.view(entity, 'load')}.yaml"] = load_suite(facts, entity)
    return written


def question(asked: Question) -> str:
    """What is asked, in a sentence."""
    row = naming.words(asked.entity)
    if not asked.is_yes_no:
        return f"When the {row} is known, what will {naming.words(asked.label)} be, as it is told {asked.in_time}?"
    return f"When the {row} is known, will it turn out {asked.in_time} that {asked.positive}?"


def known_in_time(asked: Question, facts: Facts) -> float:
    """The share of the outcomes that are told in time."""
    return asked.due.known if asked.due else facts.outcomes.known_by.get(asked.horizon_days, 1.0)


@dataclass(frozen=True)
class Promise:
    """What the spec of a model and its exposure say."""

    model: str
    entity: str
    owner: str
    source: str
    spine: str
    views: tuple[str, ...]
    labels: str
    question: str
    horizon: str
    delay_days: int
    bounds: tuple[float, float] | None
    """Of a number; else None."""
    base: float
    """What the safe default says: the share of yes, or the median of a number."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """The same of classes, in their order; else empty."""
    coverage: float = 1.0
    """Share of the rows of a day that have a label, of nine in ten days at least, and a little less."""


def promised(asked: Question, facts: Facts) -> Promise:
    """What they say of a question about the rows themselves."""
    outcomes = facts.outcomes
    bounds = number_bounds(*outcomes.percentiles) if outcomes.percentiles is not None else None
    in_time = asked.due.positive if asked.due else outcomes.positive_by.get(asked.horizon_days, outcomes.base)
    share = in_time if asked.untold_is_no and asked.is_yes_no else outcomes.base
    return Promise(
        model=asked.model,
        entity=asked.entity,
        owner=asked.owner,
        source=asked.source,
        spine=asked.spine,
        views=views(asked),
        labels=asked.labels,
        question=question(asked),
        horizon=asked.horizon,
        delay_days=asked.due.delay_days if asked.due else 0,
        bounds=bounds,
        base=share,
        shares=outcomes.shares,
        coverage=1.0 if asked.is_yes_no and asked.untold_is_no else 0.9 * known_in_time(asked, facts) * outcomes.usual,
    )


def spec_text(promise: Promise, nights: Calendar) -> str:
    """models/<model>/spec.yaml."""
    if promise.bounds:
        low, high = promise.bounds
        kind = f"  bounds: {listed([low, high])}         # the 1st and 99th percentile, and a tenth of their width\n"
        heavy, light, metric = "xgboost.XGBRegressor", "sklearn.linear_model.Ridge", "absolute_error"
        default = number(min(max(promise.base, low), high), 3)
    elif promise.shares:
        kind = f"  classes: {listed(promise.shares)}\n"
        heavy, light, metric = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression", "brier"
        default = mapping(rounded(promise.shares))
    else:
        kind = "  positive: true\n"
        heavy, light, metric = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression", "brier"
        default = f"{min(max(promise.base, 0.001), 0.999):.3f}"
    covered = f", min_coverage: {promise.coverage:.2f}" if promise.coverage < MIN_COVERAGE else ""
    return f"""# {" ".join(promise.question.split())}
entity: {promise.entity}
owner: {scalar(promise.owner)}
tier: 2                       # 1 = high stakes: promotion needs a person's approval
source: {promise.source}
prediction:
  spine: {promise.spine}
  every: 1d
  features: [{", ".join(promise.views)}]
label:
  table: {promise.labels}
{kind}  horizon: {promise.horizon}                # why so many days: card.md
  delay: {promise.delay_days}d
estimator:
  class: {heavy}
  window: {nights.window_days}d
  tune: {{trials: 12}}
light: {{class: {light}}}
gate: {{metric: {metric}, alpha: 0.05, min_matured: {nights.min_matured}, min_shadow: 7d{covered}}}
drift: {{window: 7d, reference: training, on_drift: retrain, cooldown: 14d}}
fallback: {{deadline_ms: 20, tiers: [champion, previous, light], safe_default: {default}, audit_after: 3d}}
"""


def rounded(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares of classes in thousandths, which add up to 1 exactly: by largest remainders."""
    whole = math.fsum(shares.values())
    thousandths = {name: int(1000 * share / whole) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: thousandths[name] - 1000 * shares[name] / whole)
    for name in by_remainder[: 1000 - sum(thousandths.values())]:
        thousandths[name] += 1
    return {name: count / 1000 for name, count in thousandths.items()}


def card(asked: Question, facts: Facts, nights: Calendar, why: str) -> str:
    """models/<model>/card.md: what was inferred, and what was not known."""
    outcomes = facts.outcomes
    base = (
        f"{outcomes.base:.4g} at the median"
        if asked.is_number
        else f"{100 * outcomes.base:.3g} % positive"
        if asked.is_yes_no
        else ", ".join(f"{100 * share:.3g} % {name}" for name, share in outcomes.shares.items())
    )
    rows = "\n".join(
        f"| {days} | {100 * share:.3g} % |"
        + (f" {100 * outcomes.positive_by.get(days, 0.0):.3g} % |" if asked.is_yes_no else "")
        for days, share in outcomes.known_by.items()
        if days <= max(2 * asked.horizon_days, 14)
    )
    head = "| days | share of the outcomes that are known |" + (
        " positive by then, of all rows |" if asked.is_yes_no else ""
    )
    line = "|---|---|" + ("---|" if asked.is_yes_no else "")
    late = known_in_time(asked, facts)
    left = "\n".join(f"- `{name}` is no feature: {reason}." for name, reason in facts.left_out.items())
    share = f"{100 * (1 - late):.3g} % of them do" if late < 1 else "none does here"
    what = f"An outcome that comes later ({share}) " + (
        "counts as no." if asked.is_yes_no and asked.untold_is_no else "gives the row no label."
    )
    cohorts = (
        f"- Rows were sampled by `{facts.cohorts.sampled_by}`: of days before {facts.cohorts.first} only those with a "
        f"long lead are there, so that the spine begins then. From {facts.cohorts.last} on long leads are missing.\n"
        if facts.cohorts is not None
        else ""
    )
    return f"""# {naming.words(asked.model).capitalize()}

{question(asked)} Written by `tiltyard new model` from {outcomes.rows:,} rows of {facts.first} to {facts.last}; whoever
knows more writes it here. Owner: {asked.owner}.

## Label and horizon

The outcome is `{asked.label}` of `{asked.staging}`, as it is first written: {base} of {outcomes.told:,}. {what}

{asked.horizon.capitalize() if asked.due else counted(asked.horizon_days, "day")}: {why}.

{head}
{line}
{rows}

## Features

{_features(asked)}

{left}

## Nights

About {facts.per_day:g} rows a night. The first night that can train is {nights.first_trainable}, when two weeks of
cohorts have matured.

## Known limits

{cohorts}- What the columns mean is inferred from their names and values. Whether a column was filled in later, and is
  not said to be, cannot be seen in an export.
- An export bears the last value of everything: what was corrected is there as if it had always been so.
- The safe default and the limits of the suites are those of the whole export: a hindcast of it knows them beforehand.
"""


def _features(asked: Question) -> str:
    rows = [
        "| view | says | as of |",
        "|---|---|---|",
        f"| `{asked.view(asked.entity, 'intake')}` | what the row says of itself | when it is known first |",
    ]
    for column in asked.rates:
        entity = naming.entity_of(column)
        rows.append(
            f"| `{asked.view(entity, 'history')}` | past outcomes of the same {naming.words(entity)}, from matured "
            f"cohorts only, ever and over {LATELY_DAYS} days | the last matured cohort |"
        )
    for column in asked.loads:
        entity = naming.entity_of(column)
        rows.append(
            f"| `{asked.view(entity, 'load')}` | how many rows of the same {naming.words(entity)} came in a day and in "
            f"{LATELY_DAYS} days | the last row |"
        )
    return "\n".join(rows)


def exposure_text(promise: Promise) -> str:
    """The entry in dbt/models/_models__exposures.yml."""
    refs = "\n".join(f"      - ref('{name}')" for name in (promise.spine, *promise.views, promise.labels))
    text = f"{promise.question} The promise is models/{promise.model}/spec.yaml."
    return f"""  - name: {promise.model}
    label: {scalar(naming.words(promise.model).capitalize())}
    type: ml
    description: {prose(text)}
    owner: {{name: {prose(promise.owner)}}}
    depends_on:
{refs}
"""


def shown(asked: Question, facts: Facts, why: str) -> tuple[str, ...]:
    """What was found, a line each."""
    return (
        question(asked),
        f"  {facts.outcomes.rows:,} rows of {facts.first} to {facts.last}, about {facts.per_day:g} a night; "
        f"{facts.outcomes.told:,} have an outcome",
        f"  horizon {asked.horizon if asked.due else counted(asked.horizon_days, 'day')}: {why}",
        *([f"  classes: {', '.join(asked.classes)}"] if asked.classes else []),
        *(f"  {line}" for line in by_horizon(facts)),
        f"  features of the row: {', '.join(feature.name for feature in facts.features)}",
        *(f"  left out: {column}, {reason}" for column, reason in facts.left_out.items()),
        f"  past rate of the outcome per: {', '.join(asked.rates) or '–'}; rows per: {', '.join(asked.loads) or '–'}",
    )


def by_horizon(facts: Facts) -> tuple[str, ...]:
    """The share of the outcomes that is known by day, a line each."""
    return tuple(
        f"  {days:>4} {'day ' if days == 1 else 'days'}  {100 * share:5.1f} % of the outcomes are known"
        for days, share in facts.outcomes.shown
    )


# -- suites -----------------------------------------------------------------------------------


def expect(kind: str, kwargs: str, severity: str, why: str) -> str:
    """One expectation."""
    return f"  - type: {kind}\n    kwargs: {{{kwargs}}}\n    severity: {severity}\n    meta: {{why: {scalar(why)}}}\n"


def head(comment: str, *, may_be_empty: bool) -> str:
    """How a suite begins."""
    return f"# {comment}\n" + ("meta: {may_be_empty: true}\n" if may_be_empty else "") + "expectations:\n"


VOLUME = (
    expect(
        "expect_table_row_count_to_be_between", "min_value: {$PARAMETER: usual_rows * 0.02}", "critical",
        "Collapsed volume against the same weekday's median.",
    )
    + expect(
        "expect_table_row_count_to_be_between",
        "min_value: {$PARAMETER: usual_rows * 0.3}, max_value: {$PARAMETER: usual_rows_or_any * 4}", "warning",
        "Far from the same weekday's median.",
    )
)  # fmt: skip


def intake_suite(asked: Question, facts: Facts) -> str:
    """What a night's rows look like, by the quantiles of those that were delivered."""
    text = head(
        f"The rows of the night, by those of {facts.first} to {facts.last}.", may_be_empty=facts.has_silent_days
    )
    text += VOLUME
    for feature in facts.features:
        if feature.values:
            text += expect(
                "expect_column_values_to_be_in_set",
                f"column: {feature.name}, value_set: {listed(feature.values)}, mostly: 0.95", "warning",
                "Other values are scored as unknown until the model is trained with them.",
            )  # fmt: skip
        if feature.low is not None and feature.high is not None:
            room = max(feature.high - feature.low, abs(feature.high), 1.0)
            low, high = feature.low - 0.5 * room, feature.high + 0.5 * room
            if feature.low >= 0:
                low = 0.0
            if math.isfinite(low) and math.isfinite(high):
                text += expect(
                    "expect_column_values_to_be_between",
                    f"column: {feature.name}, min_value: {number(low)}, max_value: {number(high)}, mostly: 0.98",
                    "warning",
                    f"98 of a hundred were {feature.low:.6g} to {feature.high:.6g}; far from it is another unit.",
                )  # fmt: skip
        if feature.missing < 0.5:
            mostly = max(0.05, (1 - feature.missing) * 0.9)
            text += expect(
                "expect_column_values_to_not_be_null", f"column: {feature.name}, mostly: {mostly:.2g}", "warning",
                f"{100 * feature.missing:.2g} % were missing; far more is a lost column.",
            )  # fmt: skip
    return text


def history_suite(asked: Question, facts: Facts, entity: str) -> str:
    """Of past outcomes."""
    text = head("Past outcomes, from matured labels: nothing before the first cohort has matured.", may_be_empty=True)
    for name in asked.rated:
        rate = f"column: {entity}_{name}_rate"
        if not asked.is_number:
            text += expect(
                "expect_column_values_to_be_between", f"{rate}, min_value: 0, max_value: 1", "critical", "A rate."
            )
        text += expect(
            "expect_column_values_to_not_be_null", rate, "critical",
            "A row is written when a label matures, so that there is always a rate.",
        )  # fmt: skip
    count = f"{entity}_matured_count_{LATELY_DAYS}d"
    return text + expect(
        "expect_column_values_to_be_between", f"column: {count}, min_value: 1", "critical",
        "A row is written when a label matures, so that there is always one.",
    )  # fmt: skip


def load_suite(facts: Facts, entity: str) -> str:
    """Of counts."""
    text = head("How many rows came, after each of them.", may_be_empty=facts.has_silent_days) + VOLUME
    return text + expect(
        "expect_column_values_to_be_between", f"column: {entity}_rows_1d, min_value: 1", "critical",
        "A row is written when one comes, so that there is always one.",
    )  # fmt: skip


def known_enough(share: float) -> bool:
    """Whether a horizon lets nearly all outcomes be known."""
    return share >= KNOWN
