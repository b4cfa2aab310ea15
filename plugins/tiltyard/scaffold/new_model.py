"""A new model: a question is asked of the rows that a source has delivered, and all that answers it is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from tiltyard import spec as specs
from tiltyard.errors import BadInput
from tiltyard.prepare import project
from tiltyard.scaffold import asked as asking
from tiltyard.scaffold import delivered as delivered_rows
from tiltyard.scaffold import model_texts, naming, new_review, promise_texts, reviewing
from tiltyard.scaffold.asked import Calendar, Due, Facts, Outcomes, Question
from tiltyard.scaffold.delivered import Delivered
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import Settings
from tiltyard.train.blocks import MIN_ROWS
from tiltyard.words import counted


def look(settings: Settings, request: ModelRequest) -> ModelPlan:
    """What would be written. Raises BadInput for a question that the rows cannot answer."""
    _free(settings, request.name)
    with delivered_rows.opened(settings, request.source, request.table) as rows:
        if asks_of_whom(rows, request):
            return new_review.plan(rows, request)
        labels = _labels(rows)
        label = _label(rows, request, labels)
        values = delivered_rows.label_values(rows, label)
        truth, positive = _truth(rows, request, label, values)
        outcomes = delivered_rows.outcomes(rows, label, truth, is_number=request.is_number)
        per_day = delivered_rows.days(rows)
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
            truth=truth,
            positive=positive,
            is_number=request.is_number,
            horizon_days=horizon,
            rates=_shared(rows, request.rates, groups, "--rate-of"),
            loads=_shared(rows, request.loads, groups, "--load-of"),
            owner=request.owner,
            zone=zone,
            untold_is_no=request.untold != "unknown"
            and (request.untold == "no" or len(values) < 2 or outcomes.untold < asking.UNTOLD),
            due=due,
        )
    usual = due.usual_days + due.delay_days if due else None
    nights = asking.calendar(facts, horizon, 2 * MIN_ROWS, has_rates=bool(asked.rates), usual_days=usual)
    promises = promise_texts.promises(asked, facts, nights, why)
    return ModelPlan(
        texts={**model_texts.tables(asked, facts), **promises},
        exposure=promise_texts.exposure_text(promise_texts.promised(asked, facts)),
        nights=nights,
        rows_per_night=facts.per_day,
        horizon_days=horizon,
        until=due.column if due else None,
        base=outcomes.base,
        features=tuple(feature.name for feature in features),
        left_out=left_out,
        found=promise_texts.shown(asked, facts, why),
        by_horizon=promise_texts.by_horizon(facts),
        notes=(*_notes(asked, facts, nights), *_suspicious(asked, telling)),
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
        entries = (specs.read_yaml(exposures)[1] or {}).get("exposures") or ()
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


def _truth(rows: Delivered, request: ModelRequest, label: str, values: tuple[str, ...]) -> tuple[str, str]:
    kind = rows.kind(label)
    if request.is_number:
        if kind not in ("whole", "number"):
            raise BadInput(f"--number: '{label}' holds no numbers; say which value is meant with --positive.")
        if len(values) < 2:
            raise BadInput(f"--label: '{label}' has one value only, so that there is nothing to learn.")
        return f"versions.{label}", ""
    positive = request.positive
    return asking.positive_sql(label, kind, values, positive)


def _groups(rows: Delivered, label: str) -> tuple[str, ...]:
    """The columns whose values rows share, of the most different values first: of these each says most."""
    found: dict[str, int] = {}
    for name in rows.staging.columns:
        kind = rows.kind(name)
        is_key = name.endswith("_id") or kind == "text" or rows.said.identifies(rows.staging.name, name)
        if name in (rows.key, label) or name in project.RESERVED or not is_key or not rows.has_values(name):
            continue
        if rows.said.written_later(rows.staging.name, name) or kind in ("day", "instant", "number", "yes_no"):
            continue
        distinct = rows.connection.execute(
            f'select count(distinct "{name}"), count("{name}") from first_known'
        ).fetchone()
        if distinct and distinct[0] >= 3 and distinct[1] >= 1.5 * distinct[0]:
            found[name] = distinct[0]
    return tuple(sorted(found, key=lambda name: -found[name]))


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
    entities = [naming.entity_of(name) for name in columns]
    if len(set(entities)) < len(entities):
        raise BadInput(f"{option}: {', '.join(columns)} would be one entity by their names; leave one out.")
    return columns


def _suspicious(asked: Question, telling: Mapping[str, float]) -> list[str]:
    return [
        f"{name} nearly tells the outcome (correlation {value:.2f}), and is taken to be known with its row; if it is "
        f"written later, say so in the contract of {asked.source} (written_later), and cut the export again."
        for name, value in telling.items()
    ]


def _notes(asked: Question, facts: Facts, nights: Calendar) -> tuple[str, ...]:
    notes = []
    if not asked.is_number and facts.outcomes.untold >= asking.UNTOLD:
        without = f"{facts.outcomes.rows - facts.outcomes.told:,} of {facts.outcomes.rows:,} rows have no outcome"
        notes.append(
            f"{without} and count as no; --untold unknown leaves them out."
            if asked.untold_is_no
            else f"{without}, and a no is told as such: they have no label; --untold no counts them as no."
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
    if facts.last < nights.last_night:
        notes.append(
            f"The rows end on {facts.last}: on later nights only outcomes come, and tables without new rows are held."
        )
    if nights.first_trainable >= nights.last_night:
        notes.append(
            f"The rows end before anything can be trained: the first night that could is {nights.first_trainable}, the "
            f"last that tells something {nights.last_night}; a shorter --horizon or a longer export helps."
        )
    return tuple(notes)
