"""A new model of whoever rows are of: what comes of them next is asked of the rows that a source has delivered."""

from tiltyard.errors import BadInput
from tiltyard.scaffold import delivered as delivered_rows
from tiltyard.scaffold import naming, review_texts, reviewing
from tiltyard.scaffold.asked import Calendar
from tiltyard.scaffold.delivered import Delivered
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.scaffold.reviewing import Review, ReviewFacts, Sort
from tiltyard.train.blocks import MIN_ROWS


def plan(rows: Delivered, request: ModelRequest) -> ModelPlan:
    """What would be written. Raises BadInput for a question that the rows cannot answer."""
    if request.asks_each:
        raise BadInput("--classes is of a question about a row; with --entity ask for one with --positive.")
    if request.rates or request.loads:
        raise BadInput("--rate-of and --load-of are of a question about a row; leave them out, or leave --entity out.")
    entity, columns = reviewing.named(rows, request.entity or "")
    sort, measure, condition, what = _outcome(rows, request)
    found = reviewing.comings(rows, columns, measure, condition)
    if request.until is not None:
        raise BadInput(
            "--until: a review is of many rows, and no column tells until when they count; give --horizon in days."
        )
    horizon = request.horizon_days or reviewing.default_horizon(found.span_days)
    review = Review(
        model=request.name,
        source=request.source,
        staging=rows.staging.name,
        row=rows.key,
        entity=entity,
        columns=columns,
        sort=sort,
        measure=measure,
        condition=condition,
        what=what,
        horizon_days=horizon,
        every_days=found.every_days,
        active_days=found.active_days(horizon),
        owner=request.owner,
    )
    facts = reviewing.look(rows, review, found)
    nights = reviewing.calendar(facts, horizon, 2 * MIN_ROWS)
    return ModelPlan(
        texts=review_texts.texts(review, facts, nights),
        exposure=review_texts.exposure(review, facts),
        nights=nights,
        rows_per_night=round(facts.per_night, 1),
        horizon_days=horizon,
        until=None,
        base=facts.base,
        features=tuple(name for name, *_ in review_texts.past(review, facts)),
        left_out=facts.left_out,
        found=review_texts.shown(review, facts),
        by_horizon=review_texts.by_horizon(review, facts),
        notes=(*delivered_rows.left_out(rows), *_notes(review, facts, nights)),
    )


def _outcome(rows: Delivered, request: ModelRequest) -> tuple[Sort, str | None, str | None, str]:
    """What comes: its sort, the column that is summed up, SQL of the rows that count, and it in words."""
    row = naming.words(rows.contract.name)
    any_row = f"{row}s" if request.is_number else f"a {row}"
    if request.label is None:
        return ("count" if request.is_number else "comes"), None, None, any_row
    label = delivered_rows.column(rows, request.label, "--label")
    if rows.said.written_later(rows.staging.name, label):
        raise BadInput(
            f"--label: '{label}' is written later than its row. With --entity the outcome is in the rows that come, as "
            "they are known first; ask of the row itself without --entity, or name another column."
        )
    kind = rows.kind(label)
    if request.is_number and request.positive is None:
        if kind not in ("whole", "number"):
            raise BadInput(f"--number: '{label}' holds no numbers; say which rows count with --positive.")
        return "sum", label, None, f"the {naming.words(label)}"
    positive = request.positive or ("true" if kind == "yes_no" else None)
    values = delivered_rows.label_values(rows, label)
    if positive is None:
        raise BadInput(
            f"--label: '{label}' is {', '.join(values[:6])}; say which is meant with --positive, or --number."
        )
    condition = reviewing.condition(label, kind, values, positive)
    what = f"{any_row} with {naming.words(label)} {positive}"
    return ("count" if request.is_number else "comes"), None, condition, what


def _notes(review: Review, facts: ReviewFacts, nights: Calendar) -> tuple[str, ...]:
    notes = []
    if not review.is_number and not 0.02 <= facts.base <= 0.98:
        notes.append(
            f"The outcome is yes after {100 * facts.base:.3g} % of the reviews: little is to be told apart; another "
            "--horizon may help."
        )
    if review.is_number and facts.percentiles[0] == facts.percentiles[1]:
        notes.append(f"The outcome is nearly always {facts.base:.4g}; a longer --horizon may help.")
    if nights.first_trainable >= nights.last_night:
        notes.append(
            f"The rows end before anything can be trained: the first night that could is {nights.first_trainable}, the "
            f"last that tells something {nights.last_night}; a shorter --horizon or a longer export helps."
        )
    return tuple(notes)
