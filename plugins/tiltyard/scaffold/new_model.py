"""A new model: a question is asked of the rows that a source has delivered, and all that answers it is written."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from tiltyard.errors import BadInput
from tiltyard.lake import text
from tiltyard.prepare import project
from tiltyard.scaffold import asked as asking
from tiltyard.scaffold import delivered as delivered_rows
from tiltyard.scaffold import model_texts, naming, new_review, promise_texts, reviewing
from tiltyard.scaffold.asked import Calendar, Due, Facts, Outcomes, Question
from tiltyard.scaffold.delivered import Delivered
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import Settings
from tiltyard.target import FEWEST_CLASSES, MOST_CLASSES
from tiltyard.train.blocks import MIN_ROWS
from tiltyard.words import counted
from tiltyard.yaml_files import read_yaml

FEWEST_OF_A_CLASS = 60
"""Rows of the rarest class that a first training begins with: five blocks need some of it each."""
FEWEST_IN_TWO_WEEKS = 20
"""Rows of a class below which it cannot stand alone: every block of a training needs some of it."""


def look(settings: Settings, request: ModelRequest) -> ModelPlan:
    """What would be written. Raises BadInput for a question that the rows cannot answer."""
    _free(settings, request.name)
    with delivered_rows.opened(settings, request.source, request.table) as rows:
        if asks_of_whom(rows, request):
            return new_review.plan(rows, request)
        labels = _labels(rows)
        label = _label(rows, request, labels)
        values = delivered_rows.label_values(rows, label)
        per_day = delivered_rows.days(rows)
        truth = _truth(rows, request, label, values, per_day)
        outcomes = delivered_rows.outcomes(rows, label, truth.positive_sql, is_number=request.is_number)
        outcomes = replace(outcomes, shares=truth.shares)
        if truth.positive and outcomes.base in (0, 1):
            which = "every" if outcomes.base else "no"
            raise BadInput(f"--positive: {truth.positive} holds of {which} outcome, so that there is nothing to learn.")
        cohorts = delivered_rows.cohorts(rows, per_day)
        first = cohorts.first if cohorts else per_day[0][0]
        last = per_day[-1][0]
        within = [count for day, count in per_day if day >= first]
        zone = rows.contract.timing.event_time.zone
        features, left_out = delivered_rows.features(rows, label, zone)
        facts = Facts(
            features=features,
            left_out=left_out,
            outcomes=outcomes,
            cohorts=cohorts,
            first=first,
            last=last,
            landed=rows.landed,
            per_day=sorted(within)[len(within) // 2],
            has_silent_days=len(within) <= (last - first).days,
        )
        telling = delivered_rows.telling(rows, [feature.name for feature in features])
        due = _due(rows, request, label)
        horizon, why = _horizon(request, outcomes, (last - first).days + 1, due)
        groups = _groups(rows, label)
        asked = Question(
            model=request.name,
            source=request.source,
            table=rows.contract.name,
            entity=naming.entity_of(rows.key),
            label=label,
            truth=truth.sql,
            positive=truth.positive,
            is_number=request.is_number,
            classes=tuple(truth.shares),
            horizon_days=horizon,
            rates=_shared(rows, request.rates, groups, "--rate-of"),
            loads=_shared(rows, request.loads, groups, "--load-of"),
            owner=request.owner,
            zone=zone,
            untold_is_no=request.untold != "unknown"
            and (request.untold == "no" or len(values) < 2 or outcomes.untold < asking.UNTOLD),
            due=due,
        )
        _one_each(asked)
        facts = replace(facts, features=asking.told_apart(features, asked.beside))
    usual = due.usual_days + due.delay_days if due else None
    fewest = 2 * MIN_ROWS
    if truth.shares:
        fewest = max(fewest, math.ceil(FEWEST_OF_A_CLASS / min(truth.shares.values())))
    nights = asking.calendar(facts, horizon, fewest, has_rates=bool(asked.rates), usual_days=usual)
    promises = promise_texts.promises(asked, facts, nights, why)
    return ModelPlan(
        texts={**model_texts.tables(asked, facts), **promises},
        exposure=promise_texts.exposure_text(promise_texts.promised(asked, facts)),
        nights=nights,
        rows_per_night=facts.per_day,
        horizon_days=horizon,
        until=due.column if due else None,
        base=outcomes.base,
        features=tuple(feature.name for feature in facts.features),
        left_out=left_out,
        found=promise_texts.shown(asked, facts, why),
        by_horizon=promise_texts.by_horizon(facts),
        notes=(
            *delivered_rows.left_out(rows),
            *truth.notes,
            *_notes(asked, facts, nights),
            *_suspicious(asked, telling),
        ),
    )


def _due(rows: Delivered, request: ModelRequest, label: str) -> Due | None:
    """Until when the outcome of each row is told, where a planned column says it: the one that is asked for, or, where
    nobody asks for days, the one that the contract says it is written with."""
    if request.until is not None:
        return delivered_rows.due(rows, delivered_rows.column(rows, request.until, "--until"), request.horizon_days)
    column = delivered_rows.told_by(rows, label) if request.horizon_days is None else None
    return delivered_rows.due(rows, column, None) if column else None


def _horizon(request: ModelRequest, outcomes: Outcomes, span_days: int, due: Due | None) -> tuple[int, str]:
    """Days of the horizon, the longest where a column tells it, and why."""
    if due is not None:
        later = f" or {counted(due.delay_days, 'day')} later" if due.delay_days else ""
        return due.longest_days, f"{100 * due.known:.3g} % of the outcomes are known by {due.column}{later}"
    days, why = asking.horizon(outcomes, span_days)
    if request.horizon_days is None or request.horizon_days == days:
        return days, why
    share = outcomes.known_by.get(request.horizon_days)
    known = f"; {100 * share:.3g} % of the outcomes are known by then" if share is not None else ""
    return request.horizon_days, f"as was asked for{known}"


def asks_of_whom(rows: Delivered, request: ModelRequest) -> bool:
    """Whether a prediction is about whoever rows are of, and not about a row."""
    if request.entity is None:
        return False
    _, columns = reviewing.named(rows, request.entity)
    return columns != (rows.key,)


@dataclass(frozen=True)
class Candidates:
    """What may be asked of a table."""

    labels: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    """Column → what it has been told as."""
    groups: tuple[str, ...]
    """Columns whose values rows share."""
    of_whom: bool
    """Whether the question is about whoever rows are of."""


def candidates(settings: Settings, request: ModelRequest) -> Candidates:
    """What may be asked. Raises BadInput as `look` does."""
    _free(settings, request.name)
    with delivered_rows.opened(settings, request.source, request.table) as rows:
        labels = _labels(rows)
        values = {name: delivered_rows.label_values(rows, name) for name in labels}
        return Candidates(labels, values, _groups(rows, ""), asks_of_whom(rows, request))


def _free(settings: Settings, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 30 or name in naming.RESERVED:
        raise BadInput(
            f"'{name}' is no plain name of a model: small letters, digits and single underscores, 30 at most."
        )
    if (settings.models / name).exists():
        raise BadInput(
            f"{settings.models / name} is there already, and nothing is written over; choose another name, or take it "
            f"away first with tiltyard remove {name}."
        )
    exposures = settings.dbt / "models" / "_models__exposures.yml"
    if exposures.exists():
        entries = (read_yaml(exposures)[1] or {}).get("exposures") or ()
        if any(entry.get("name") == name for entry in entries):
            raise BadInput(f"{exposures} has an exposure '{name}' already; take it away, or choose another name.")


def _labels(rows: Delivered) -> tuple[str, ...]:
    """The columns that are written later, and are no times."""
    return tuple(
        name
        for name in rows.staging.columns
        if rows.has_values(name)
        and rows.kind(name) not in ("day", "instant")
        and rows.said.written_later(rows.staging.name, name)
    )


def _label(rows: Delivered, request: ModelRequest, labels: tuple[str, ...]) -> str:
    if request.label is None:
        if len(labels) == 1:
            return labels[0]
        near = f": {', '.join(labels)}" if labels else ", and no column is said to be written later"
        raise BadInput(f"Say which column holds the outcome with --label{near}.")
    name = delivered_rows.column(rows, request.label, "--label")
    if name not in labels:
        raise BadInput(
            f"--label: '{name}' is not said to be written later, so that it is known with its row and nothing is to be "
            f"predicted; say written_later of it in {rows.contract.source}'s contract, and cut the export again."
        )
    return name


@dataclass(frozen=True)
class Truth:
    """What an outcome is taken for."""

    sql: str
    """From the label column as `versions` has it."""
    positive_sql: str
    """The same as a yes or no, or a number: of classes whether it is the commonest."""
    positive: str = ""
    """What a positive outcome is, in words; empty for a number, and for classes."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of classes: class → its share of the outcomes."""
    notes: tuple[str, ...] = ()


def _truth(
    rows: Delivered,
    request: ModelRequest,
    label: str,
    values: tuple[str, ...],
    per_day: Sequence[tuple[date, int]],
) -> Truth:
    kind = rows.kind(label)
    options = {
        "--number": request.is_number,
        "--positive": request.positive is not None,
        "--classes": bool(request.asks_each),
    }
    given = [option for option, is_given in options.items() if is_given]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)}: an outcome is one of these; leave the others out.")
    several = kind == "text" and FEWEST_CLASSES <= len(values) <= MOST_CLASSES and request.asks_each is None
    if request.asks_each or (several and not given):
        return _classes(rows, label, kind, len(per_day), is_asked=bool(request.asks_each))
    if request.is_number:
        if kind not in ("whole", "number"):
            raise BadInput(f"--number: '{label}' holds no numbers; say which value is meant with --positive.")
        if len(values) < 2:
            raise BadInput(f"--label: '{label}' has one value only, so that there is nothing to learn.")
        return Truth(f"versions.{label}", f"versions.{label}")
    sql, positive = asking.positive_sql(label, kind, values, request.positive)
    return Truth(sql, sql, positive)


def _classes(rows: Delivered, label: str, kind: str, days: int, *, is_asked: bool) -> Truth:
    """An outcome of which every text is asked for that comes often enough to be trained on and judged by."""
    counts = delivered_rows.told_as(rows, f"versions.{label}", label)
    fewest = FEWEST_IN_TWO_WEEKS * max(1.0, days / 14)
    truth, classes, rare = asking.class_sql(label, kind, counts, fewest)
    by_class = delivered_rows.told_as(rows, truth, label)
    told = sum(by_class[name] for name in classes)
    notes = []
    if not is_asked:
        notes.append(f"{label} has several texts, and each of them is asked for; --positive asks for one.")
    if rare:
        shown = ", ".join(rare[:6]) + (f" and {len(rare) - 6} more" if len(rare) > 6 else "")
        end = f"are put together as {asking.OTHER}" if asking.OTHER in classes else "have no label"
        notes.append(f"Too rare to stand alone, or no name of a class, so that they {end}: {shown}.")
    commonest = f"{truth} = {text(classes[0])}"
    return Truth(truth, commonest, "", {name: by_class[name] / told for name in classes}, tuple(notes))


def _groups(rows: Delivered, label: str) -> tuple[str, ...]:
    """The columns whose values rows share, of the most different values first: of these each says most."""
    found: dict[str, int] = {}
    for name in rows.staging.columns:
        kind = rows.kind(name)
        is_key = name.endswith("_id") or kind == "text" or rows.said.identifies(rows.staging.name, name)
        if name in (rows.key, label) or name in project.RESERVED or not is_key or not rows.has_values(name):
            continue
        if naming.entity_of(name) == naming.entity_of(rows.key):
            continue
        if rows.said.written_later(rows.staging.name, name) or kind in ("day", "instant", "number", "yes_no"):
            continue
        distinct = rows.connection.execute(
            f'select count(distinct "{name}"), count("{name}") from first_known'
        ).fetchone()
        if distinct and distinct[0] >= 3 and distinct[1] >= 1.5 * distinct[0]:
            found[name] = distinct[0]
    ordered = sorted(found, key=lambda name: -found[name])
    each = {naming.entity_of(name): name for name in reversed(ordered)}  # of `sender` and `sender_id` one
    return tuple(name for name in ordered if each[naming.entity_of(name)] == name)


def _shared(rows: Delivered, chosen: tuple[str, ...] | None, groups: tuple[str, ...], option: str) -> tuple[str, ...]:
    if chosen is None:
        return groups[:2] if option == "--rate-of" else groups[:1]
    columns = tuple(dict.fromkeys(delivered_rows.column(rows, name, option) for name in chosen))
    for name in columns:
        if name == rows.key:
            raise BadInput(f"{option}: '{name}' names one row, which has no past; give a column that rows share.")
        if rows.said.written_later(rows.staging.name, name):
            raise BadInput(
                f"{option}: '{name}' is written later, so that nobody knows whose row it is; give another column."
            )
    return columns


def _one_each(asked: Question) -> None:
    """Raises BadInput where two of the columns that rows share would have one key, or that of the rows."""
    owners = {asked.key: asked.key}
    for name in (*asked.rates, *asked.loads):
        other = owners.setdefault(f"{naming.entity_of(name)}_id", name)
        if other != name:
            option = "--rate-of" if name in asked.rates else "--load-of"
            raise BadInput(f"{option}: {other}, {name} would be one entity by their names; leave one out.")


def _suspicious(asked: Question, telling: Mapping[str, float]) -> list[str]:
    return [
        f"{name} nearly tells the outcome (correlation {value:.2f}), and is taken to be known with its row; if it is "
        f"written later, say so in the contract of {asked.source} (written_later), and cut the export again."
        for name, value in telling.items()
    ]


def _notes(asked: Question, facts: Facts, nights: Calendar) -> tuple[str, ...]:
    notes = []
    if asked.is_yes_no and facts.outcomes.untold >= asking.UNTOLD:
        without = f"{facts.outcomes.rows - facts.outcomes.told:,} of {facts.outcomes.rows:,} rows have no outcome"
        notes.append(
            f"{without} and count as no; --untold unknown leaves them out."
            if asked.untold_is_no
            else f"{without}, and a no is told as such: they have no label; --untold no counts them as no."
        )
    if facts.outcomes.first_told > facts.first + timedelta(days=7):
        notes.append(
            f"Hardly any row of before {facts.outcomes.first_told} has an outcome: what is trained begins with them."
        )
    if facts.cohorts is not None:
        notes.append(
            f"Rows were sampled by {facts.cohorts.sampled_by}: the spine begins on {facts.cohorts.first}, and from "
            f"{facts.cohorts.last} on the long leads are missing."
        )
    if facts.outcomes.known_by.get(1, 0.0) >= 0.5:
        notes.append(
            "Most outcomes are known within a day, and a night answers for the day before it: who needs it sooner "
            "asks the service (docs/how-to/serve.md)."
        )
    share = promise_texts.known_in_time(asked, facts)
    if not promise_texts.known_enough(share):
        end = f"later than {asked.in_time}" if asked.due else f"after the horizon of {asked.horizon_days} days"
        notes.append(f"Of the outcomes {100 * (1 - share):.3g} % come {end}.")
    if nights.first_trainable < nights.with_history < nights.last_night:
        notes.append(
            f"Past rates begin on {facts.first + timedelta(days=asked.horizon_days)}, when the first outcomes "
            f"have matured: what trains before {nights.with_history} learns from rows that mostly have none."
        )
    if nights.last_rows < nights.last_night:
        notes.append(
            f"The rows end on {facts.last}: on later nights only outcomes come, and tables without new rows are held."
        )
    if nights.first_trainable >= nights.last_night:
        notes.append(
            f"The rows end before anything can be trained: the first night that could is {nights.first_trainable}, the "
            f"last that tells something {nights.last_night}; a shorter --horizon or a longer export helps."
        )
    return tuple(notes)
