"""The files of a model of whoever rows are of, as text: its tables, spec, card, suite and exposure. Pure."""

from pathlib import PurePosixPath

from tiltyard.prepare.dbt_files import literally
from tiltyard.scaffold import naming, promise_texts
from tiltyard.scaffold.asked import Calendar
from tiltyard.scaffold.model_texts import BUILT, INSTANT
from tiltyard.scaffold.promise_texts import Promise, expect, head
from tiltyard.scaffold.reviewing import MANY, Review, ReviewFacts, is_additive, is_whole, key_sql
from tiltyard.scaffold.yaml_text import columns, model
from tiltyard.target import number_bounds
from tiltyard.words import counted

_YEAR = 365
"""Days of the past that features are made of."""


def texts(review: Review, facts: ReviewFacts, nights: Calendar) -> dict[PurePosixPath, str]:
    """Path below the checkout → what stands there."""
    root, promise = PurePosixPath("dbt/models"), promised(review, facts)
    return {
        root / "spines" / f"{review.spine}.sql": spine_sql(review),
        root / "spines" / f"{review.spine}.yml": spine_yml(review),
        root / "labels" / f"{review.labels}.sql": label_sql(review),
        root / "labels" / f"{review.labels}.yml": label_yml(review),
        root / "features" / f"{review.view}.sql": past_sql(review, facts),
        root / "features" / f"{review.view}.yml": past_yml(review, facts),
        PurePosixPath("models") / review.model / "spec.yaml": promise_texts.spec_text(promise, nights),
        PurePosixPath("models") / review.model / "card.md": card(review, facts, nights),
        PurePosixPath("expectations/features") / f"{review.view}.yaml": suite(review, facts),
    }


def promised(review: Review, facts: ReviewFacts) -> Promise:
    """What spec and exposure say."""
    bounds = number_bounds(*facts.percentiles) if review.is_number else None
    return Promise(
        model=review.model,
        entity=review.entity,
        owner=review.owner,
        source=review.source,
        spine=review.spine,
        views=(review.view,),
        labels=review.labels,
        question=question(review),
        horizon=f"{review.horizon_days}d",
        delay_days=0,
        bounds=bounds,
        base=facts.base,
    )


def question(review: Review) -> str:
    """What is asked, in a sentence."""
    who, days = naming.words(review.entity), review.horizon_days
    if review.sort == "comes":
        return f"When the {who} is reviewed, will {review.what} come within {counted(days, 'day')}?"
    if review.sort == "count":
        return f"When the {who} is reviewed, how many of {review.what} will come within {counted(days, 'day')}?"
    return f"When the {who} is reviewed, what will {review.what} sum up to within {counted(days, 'day')}?"


# -- tables -----------------------------------------------------------------------------------


def _happened(review: Review, *selected: str) -> str:
    """The first parts of a table: the rows as they were known first, with their key and the columns in `selected`."""
    more = "".join(f"\n        {column}," for column in selected)
    return f"""versions as (

    select
        *,
        row_number() over (partition by {review.row} order by available_at, event_time) as version
    from {{{{ ref('{review.staging}') }}}}

),

happened as (

    select
        {key_sql(review.columns)} as {review.key},{more}
        event_time as happened_at,
        available_at,
        built_at
    from versions
    where version = 1 and {is_whole(review.columns)}

),
"""


def spine_sql(review: Review) -> str:
    """One row per prediction to make: each review that is due."""
    key, every = review.key, review.every_days
    seventh = "each night has its seventh of them" if every == 7 else "there are few of them"
    return f"""{{{{ config(unique_key='{key}') }}}}

with

{_happened(review)}
-- every {every if every > 1 else ""}{"th " if every > 1 else ""}day after the first row: {seventh}
known as (

    select
        {key},
        min(available_at) as first_known_at,
        max(built_at) as built_at
    from happened
    group by {key}

),

reviewed as (

    select
        {key},
        unnest(generate_series(
            first_known_at + interval '{every} days',
            {{{{ landed_until('{review.source}') }}}},
            interval '{every} days'
        )) as prediction_time,
        built_at as inputs_built_at
    from known

),

due as (

    select *
    from reviewed
    where
        prediction_time >= {{{{ landed_from('{review.source}') }}}}
        and prediction_time < {{{{ landed_until('{review.source}') }}}}

),

{{%- if is_incremental() %}}
-- touched by rows written since the last build, and by reviews that have come due since
fresh as (

    select distinct {key}
    from due
    where
        inputs_built_at > {{{{ last_built() }}}}
        or prediction_time > (select max(this.prediction_time) from {{{{ this }}}} as this)

),

{{%- endif %}}

-- while the last row is not too long ago
active as (

    select due.*
    from due
    asof inner join happened
        on
            due.{key} = happened.{key}
            and due.prediction_time >= happened.available_at
    where due.prediction_time < happened.happened_at + interval '{review.active_days} days'

),

final as (

    select
        {key},
        prediction_time,
        prediction_time as event_time,
        prediction_time as available_at,
        {{{{ built_at() }}}} as built_at
    from active
    {{%- if is_incremental() %}}
    where {key} in (select fresh.{key} from fresh)
    {{%- endif %}}

)

select * from final
"""


def spine_yml(review: Review) -> str:
    """Its columns."""
    who = naming.words(review.entity)
    often = "day" if review.every_days == 1 else f"{review.every_days} days"
    described = [
        (review.key, "varchar", f"The {who}."),
        ("prediction_time", INSTANT, "When the review is due."),
        ("event_time", INSTANT, "The same instant."),
        ("available_at", INSTANT, "The same instant; what is reviewed is known before it."),
        BUILT,
    ]
    required = (review.key, "prediction_time", "event_time", "available_at")
    said = f"One row per {who} and {often}, while its last row is less than {review.active_days} days ago."
    return model(review.spine, said, (review.key, "prediction_time"), columns(described, required))


def label_sql(review: Review) -> str:
    """What came within the horizon, known when it has; and that nothing did, when everything up to then has landed."""
    key = review.key
    worth = {"comes": (), "count": (), "sum": (f"{review.measure} as worth",)}[review.sort]
    counts = (f"{literally(review.condition)} as counts",) if review.condition else ()
    return f"""{{{{ config(unique_key='{key}') }}}}

with

{_happened(review, *worth, *counts)}
counted as (

    select * from happened{" where counts" if review.condition else ""}

),

reviews as (

    select
        *,
        prediction_time + interval '{review.horizon_days} days' as matures_at
    from {{{{ ref('{review.spine}') }}}}

),

landed as (

    select {{{{ landed_until('{review.source}') }}}} as landed_until

),

{{%- if is_incremental() %}}
-- touched by reviews and rows written since the last build, and by cohorts that have matured since
fresh as (

    select {key}
    from reviews
    where built_at > {{{{ last_built() }}}} or matures_at > (select max(this.available_at) from {{{{ this }}}} as this)

    union

    select {key}
    from happened
    where built_at > {{{{ last_built() }}}}

),

{{%- endif %}}

affected as (

    select *
    from reviews
    {{%- if is_incremental() %}}
    where {key} in (select fresh.{key} from fresh)
    {{%- endif %}}

),
{_comes(key) if review.sort == "comes" else _sums(review)}
select * from final
"""


def _comes(key: str) -> str:
    return f"""
came as (

    select
        affected.{key},
        affected.prediction_time,
        true as label,
        min(counted.happened_at) as event_time,
        min(counted.available_at) as available_at
    from affected
    inner join counted
        on
            affected.{key} = counted.{key}
            and affected.prediction_time < counted.happened_at
            and affected.matures_at >= counted.available_at
    group by affected.{key}, affected.prediction_time

),

-- that nothing came is known when the days are over and everything of them has landed
stayed_away as (

    select
        affected.{key},
        affected.prediction_time,
        false as label,
        affected.matures_at as event_time,
        affected.matures_at as available_at
    from affected
    left join came
        on
            affected.{key} = came.{key}
            and affected.prediction_time = came.prediction_time
    where
        came.{key} is null
        and affected.matures_at <= (select landed.landed_until from landed)

),

unioned as (

    select * from came
    union all
    select * from stayed_away

),

final as (

    select
        *,
        {{{{ built_at() }}}} as built_at
    from unioned

)
"""


def _sums(review: Review) -> str:
    key = review.key
    total = "sum(counted.worth)" if review.sort == "sum" else f"count(counted.{key})"
    return f"""
-- what they come to is known when the days are over and everything of them has landed
final as (

    select
        affected.{key},
        affected.prediction_time,
        cast(coalesce({total}, 0) as double) as label,
        affected.matures_at as event_time,
        affected.matures_at as available_at,
        {{{{ built_at() }}}} as built_at
    from affected
    left join counted
        on
            affected.{key} = counted.{key}
            and affected.prediction_time < counted.happened_at
            and affected.matures_at >= counted.available_at
    where affected.matures_at <= (select landed.landed_until from landed)
    group by affected.{key}, affected.prediction_time, affected.matures_at

)
"""


def label_yml(review: Review) -> str:
    """Its columns."""
    who, days = naming.words(review.entity), review.horizon_days
    what = {
        "comes": f"Whether {review.what} came within {counted(days, 'day')}",
        "count": f"How many of {review.what} came within {counted(days, 'day')}",
        "sum": f"What {review.what} summed up to within {counted(days, 'day')}",
    }[review.sort]
    described = [
        (review.key, "varchar", f"The {who}."),
        ("prediction_time", INSTANT, "When the review was due."),
        ("label", "double" if review.is_number else "boolean", f"{what}."),
        ("event_time", INSTANT, "When it came, or the horizon was over."),
        ("available_at", INSTANT, "When that was known."),
        BUILT,
    ]
    return model(
        review.labels,
        f"One row per {who} and review whose outcome is known.",
        (review.key, "prediction_time"),
        columns(described, (review.key, "prediction_time", "label", "event_time", "available_at")),
        meta={"horizon": f"{days}d"},
    )


# -- the feature view -------------------------------------------------------------------------


def past(review: Review, facts: ReviewFacts) -> list[tuple[str, str, str, str]]:
    """The features: name, SQL, data_type, description."""
    entity, lately = review.entity, facts.windows[min(1, len(facts.windows) - 1)]

    def within(days: int) -> str:
        return f"filter (where happened_at > reviewed_at - interval '{days} days')"

    found = []
    if facts.has_code:
        found.append((f"{entity}_code", review.key, "varchar", "Which one it is, since there are few."))
    found += [
        (f"{entity}_rows_{days}d", f"count(*) {within(days)}", "bigint", f"Its rows of the last {days} days.")
        for days in facts.windows
    ]
    if facts.comings.span_days >= 2 * _YEAR:  # on less it would only grow
        found.append((f"{entity}_rows_{_YEAR}d", "count(*)", "bigint", f"Its rows of the last {_YEAR} days."))
    for column in facts.columns:
        words = naming.words(column.name)
        if column.kind == "number":
            found.append((f"{entity}_mean_{column.name}", f"avg({column.name})", "double", f"Mean {words} of a row."))
            if is_additive(column.name):
                total = f"cast(coalesce(sum({column.name}) {within(lately)}, 0) as double)"
                said = f"Sum of the {words} of the last {lately} days."
                found.append((f"{entity}_{column.name}_{lately}d", total, "double", said))
        elif column.kind == "text":
            name, sql = f"{entity}_last_{column.name}", f"max_by({column.name}, place)"
            found.append((name, sql, "varchar", f"{words.capitalize()} of its last row that has one."))
        else:
            name, sql = f"{entity}_{column.name}_share", f"avg(cast({column.name} as integer))"
            found.append((name, sql, "double", f"Share of its rows in which {words} is yes."))
    found += [
        (
            f"{entity}_last_row_age_hours",
            "cast({{ dbt.datediff('max(happened_at)', 'reviewed_at', 'hour') }} as bigint)",
            "bigint",
            "Hours since its last row.",
        ),
        (
            f"{entity}_mean_gap_days",
            "cast({{ dbt.datediff('min(happened_at)', 'max(happened_at)', 'hour') }} as double)\n"
            "        / 24 / nullif(count(*) - 1, 0)",
            "double",
            "Mean number of days between two of its rows.",
        ),
    ]
    if review.every_days == 1:
        weekday = "cast(extract(isodow from reviewed_at) as integer)"
        found.append((f"{entity}_weekday", weekday, "integer", "Weekday of the review, 1 is Monday."))
    return found


def past_sql(review: Review, facts: ReviewFacts) -> str:
    """What is known of them when they are reviewed."""
    key = review.key
    selected = "\n".join(f"        {sql} as {name}," for name, sql, _, _ in past(review, facts))
    needed = tuple(dict.fromkeys(column.name for column in facts.columns))
    carried = "".join(f"\n        happened.{name}," for name in needed)
    has_texts = any(column.kind == "text" for column in facts.columns)
    place = f"row_number() over (partition by {', '.join(review.columns)} order by event_time, {review.row}) as place"
    placed, last = ((place,), ",\n        happened.place") if has_texts else ((), "")
    return f"""{{{{ config(unique_key=['{key}', 'event_time']) }}}}

with

{_happened(review, *needed, *placed)}
reviews as (

    select * from {{{{ ref('{review.spine}') }}}}

),

{{%- if is_incremental() %}}
-- a row that was written since the last build changes the reviews from when it was known
touched as (

    select
        {key},
        prediction_time as since
    from reviews
    where built_at > {{{{ last_built() }}}}

    union all

    select
        {key},
        available_at as since
    from happened
    where built_at > {{{{ last_built() }}}}

),

fresh as (

    select
        {key},
        min(since) as since
    from touched
    group by {key}

),

{{%- endif %}}

affected as (

    select
        reviews.{key},
        reviews.prediction_time as reviewed_at
    from reviews
    {{%- if is_incremental() %}}
    where
        exists (
            select 1
            from fresh
            where
                reviews.{key} = fresh.{key}
                and reviews.prediction_time >= fresh.since
        )
    {{%- endif %}}

),

seen as (

    select
        affected.{key},
        affected.reviewed_at,{carried}
        happened.happened_at{last}
    from affected
    inner join happened
        on
            affected.{key} = happened.{key}
            and affected.reviewed_at >= happened.available_at
            and affected.reviewed_at < happened.happened_at + interval '{_YEAR} days'

),

final as (

    select
        {key},
{selected}
        reviewed_at as event_time,
        reviewed_at as available_at,
        {{{{ built_at() }}}} as built_at
    from seen
    group by {key}, reviewed_at

)

select * from final
"""


def past_yml(review: Review, facts: ReviewFacts) -> str:
    """Its columns."""
    who = naming.words(review.entity)
    described = [
        (review.key, "varchar", f"The {who}."),
        *((name, data_type, description) for name, _, data_type, description in past(review, facts)),
        ("event_time", INSTANT, "When the review was due."),
        ("available_at", INSTANT, "The same instant."),
        BUILT,
    ]
    return model(
        review.view,
        f"One row per {who} and review: the rows of the last {_YEAR} days, as they were known then.",
        (review.key, "event_time"),
        columns(described, (review.key, "event_time", "available_at")),
    )


# -- promises ---------------------------------------------------------------------------------


def suite(review: Review, facts: ReviewFacts) -> str:
    """What the night's reviews look like."""
    entity = review.entity
    text = head("The reviews of the night.", may_be_empty=review.every_days > 1) + promise_texts.VOLUME
    text += expect(
        "expect_column_values_to_be_between", f"column: {entity}_last_row_age_hours, min_value: 0", "critical",
        "What is reviewed is known before its review.",
    )  # fmt: skip
    for column in facts.columns:
        name = {"text": f"{entity}_last_{column.name}", "yes_no": f"{entity}_{column.name}_share"}.get(
            column.kind, f"{entity}_mean_{column.name}"
        )
        if column.missing < 0.5:
            mostly = max(0.05, (1 - column.missing) * 0.9)
            text += expect(
                "expect_column_values_to_not_be_null", f"column: {name}, mostly: {mostly:.2g}", "warning",
                f"{100 * column.missing:.2g} % of the rows were without; far more is a lost column.",
            )  # fmt: skip
    return text


def card(review: Review, facts: ReviewFacts, nights: Calendar) -> str:
    """models/<model>/card.md: what was inferred, and what was not known."""
    who, found = naming.words(review.entity), facts.comings
    base = (
        f"{facts.base:.4g} at the median" if review.is_number else f"yes after {100 * facts.base:.3g} % of the reviews"
    )
    said = "median" if review.is_number else "yes"
    rows = "\n".join(
        f"| {days} | {f'{value:.4g}' if review.is_number else f'{100 * value:.3g} %'} |"
        for days, value in facts.by_horizon.items()
    )
    often = (
        "every day, since there are few"
        if review.every_days == 1
        else (
            f"every {review.every_days} days after the first row, since there are more than {MANY}: a seventh a night"
        )
    )
    features = "\n".join(f"| `{name}` | {description} |" for name, _, _, description in past(review, facts))
    left = "\n".join(f"- Nothing is made of `{name}`: {reason}." for name, reason in facts.left_out.items())
    made = (
        f" Its key is made of {', '.join(f'`{name}`' for name in review.columns)}." if len(review.columns) > 1 else ""
    )
    return f"""# {naming.words(review.model).capitalize()}

{question(review)} Written by `tiltyard new model` from {found.rows:,} rows of {found.entities:,} different ones,
{found.first} to {found.last}; whoever knows more writes it here. Owner: {review.owner}. Tier 2: the gate decides
alone.{made}

## Reviews

Each {who} is reviewed {often}, while its last row is less than {review.active_days} days ago: 95 of 100 times the next
row comes within {found.gap_days:.3g} days. Whoever stays away for longer is not asked about.

## Label and horizon

The outcome is in the rows of `{review.staging}` that happen after the review and are known within {review.horizon_days}
days: {base}. That nothing came is known when the days are over and everything of them has landed.

| days | {said} |
|---|---|
{rows}

## Features

From the rows of the last {_YEAR} days that were known at the review, `{review.view}`:

| feature | says |
|---|---|
{features}

{left}

## Nights

About {facts.per_night:.3g} reviews a night. The first night that can train is {nights.first_trainable}, when two weeks
of reviews have matured.

## Known limits

- Those that have not come yet are unknown, and those who came once and have gone are asked about only for a while.
- A row of which only the day is known counts as known at the day's end.
- An export bears the last value of everything: what was corrected is there as if it had always been so.
"""


def exposure(review: Review, facts: ReviewFacts) -> str:
    """The entry in dbt/models/_models__exposures.yml."""
    return promise_texts.exposure_text(promised(review, facts))


def shown(review: Review, facts: ReviewFacts) -> tuple[str, ...]:
    """What was found, a line each."""
    found, who = facts.comings, naming.words(review.entity)
    often = "every day" if review.every_days == 1 else f"every {review.every_days} days"
    return (
        question(review),
        f"  {found.rows:,} rows of {counted(found.entities, who)}, {found.first} to {found.last}",
        f"  reviewed {often}, while the last row is less than {review.active_days} days ago: about "
        f"{facts.per_night:.3g} a night",
        *(f"  {line}" for line in by_horizon(review, facts)),
        f"  features: {', '.join(name for name, *_ in past(review, facts))}",
        *(f"  left out: {name}, {reason}" for name, reason in facts.left_out.items()),
    )


def by_horizon(review: Review, facts: ReviewFacts) -> tuple[str, ...]:
    """What the outcome would be by horizon, a line each."""
    return tuple(
        f"  {days:>4} {'day ' if days == 1 else 'days'}  "
        + (f"{value:.4g} at the median" if review.is_number else f"{100 * value:5.1f} % yes")
        for days, value in facts.by_horizon.items()
    )
