"""The tables of a model, as text: spine, label and feature views, each SQL and `.yml`. Pure."""

import json
from pathlib import PurePosixPath

from tiltyard.prepare.dbt_files import literally
from tiltyard.scaffold import naming
from tiltyard.scaffold.asked import LATELY_DAYS, Facts, Question
from tiltyard.scaffold.yaml_text import columns, model

INSTANT = "timestamp with time zone"
BUILT = ("built_at", INSTANT, "Start of the build that wrote the row.")


def tables(asked: Question, facts: Facts) -> dict[PurePosixPath, str]:
    """Path below the checkout → what stands there."""
    root = PurePosixPath("dbt/models")
    intake = asked.view(asked.entity, "intake")
    written = {
        root / "spines" / f"{asked.spine}.sql": spine_sql(asked, facts),
        root / "spines" / f"{asked.spine}.yml": spine_yml(asked),
        root / "labels" / f"{asked.labels}.sql": label_sql(asked),
        root / "labels" / f"{asked.labels}.yml": label_yml(asked),
        root / "features" / f"{intake}.sql": intake_sql(asked, facts),
        root / "features" / f"{intake}.yml": intake_yml(asked, facts),
    }
    for column in asked.rates:
        view = asked.view(naming.entity_of(column), "history")
        written[root / "features" / f"{view}.sql"] = history_sql(asked, column)
        written[root / "features" / f"{view}.yml"] = history_yml(asked, column)
    for column in asked.loads:
        view = asked.view(naming.entity_of(column), "load")
        written[root / "features" / f"{view}.sql"] = load_sql(asked, column)
        written[root / "features" / f"{view}.yml"] = load_yml(asked, column)
    return written


def views(asked: Question) -> tuple[str, ...]:
    """The feature views, in the order of the spec."""
    return (
        asked.view(asked.entity, "intake"),
        *(asked.view(naming.entity_of(column), "history") for column in asked.rates),
        *(asked.view(naming.entity_of(column), "load") for column in asked.loads),
    )


def _shared(asked: Question) -> tuple[str, ...]:
    """The columns whose values rows share, each once."""
    return tuple(dict.fromkeys((*asked.rates, *asked.loads)))


def _id(column: str) -> str:
    return f"{naming.entity_of(column)}_id"


# -- spine ------------------------------------------------------------------------------------


def _first_known(asked: Question) -> str:
    """The first parts of a table of rows as they were known first."""
    key = asked.key
    return f"""versions as (

    select * from {{{{ ref('{asked.staging}') }}}}

),

affected as (

    select *
    from versions
    {{%- if is_incremental() %}}
    where {key} in (select fresh.{key} from versions as fresh where fresh.built_at > {{{{ last_built() }}}})
    {{%- endif %}}

),

numbered as (

    select
        *,
        row_number() over (partition by {key} order by available_at, event_time) as version
    from affected
    where {key} is not null

),
"""


def spine_sql(asked: Question, facts: Facts) -> str:
    """One row per prediction to make: each row of the source as it was known first."""
    shared = "".join(f"\n        cast({column} as varchar) as {_id(column)}," for column in _shared(asked))
    due = f"\n        {asked.due.column}," if asked.due else ""
    since, why = "", ""
    if facts.cohorts is not None:
        since = f"\n        and available_at >= cast('{facts.cohorts.first}' as timestamptz)"
        sampled = facts.cohorts.sampled_by
        why = f"\n-- rows were sampled by {sampled}: of earlier days only those with a long lead are there"
    return f"""{{{{ config(unique_key='{asked.key}') }}}}

with

{_first_known(asked)}{why}
final as (

    select
        {asked.key},{shared}{due}
        available_at as prediction_time,
        event_time,
        available_at,
        {{{{ built_at() }}}} as built_at
    from numbered
    where
        version = 1{since}

)

select * from final
"""


def spine_yml(asked: Question) -> str:
    """Its columns."""
    row = naming.words(asked.entity)
    described = [
        (asked.key, "varchar", f"The {row}."),
        *((_id(column), "varchar", f"Its {naming.words(naming.entity_of(column))}.") for column in _shared(asked)),
        *_due_column(asked),
        ("prediction_time", INSTANT, "When it was known first."),
        ("event_time", INSTANT, "When it happened."),
        ("available_at", INSTANT, "When it was known first."),
        BUILT,
    ]
    required = (asked.key, "prediction_time", "event_time", "available_at")
    return model(
        asked.spine, f"One row per {row}, predicted when it is known first.", (asked.key,), columns(described, required)
    )


def _due_column(asked: Question) -> tuple[tuple[str, str, str], ...]:
    if asked.due is None:
        return ()
    kind = "date" if asked.due.is_day else INSTANT
    return ((asked.due.column, kind, "Until when its outcome is decided, as it was known first."),)


# -- label ------------------------------------------------------------------------------------


def label_sql(asked: Question) -> str:
    """The truth, from the first version of a row that tells it."""
    key = asked.key
    truth = f"cast({asked.truth} as double)" if asked.is_number else asked.truth.replace("\n", "\n        ")
    truth = literally(truth)
    return f"""{{{{ config(unique_key='{key}') }}}}

with

versions as (

    select * from {{{{ ref('{asked.staging}') }}}}

),

asked as (

    select
        *,
        {asked.matures} as deadline
    from {{{{ ref('{asked.spine}') }}}}

),

landed as (

    select {{{{ landed_until('{asked.source}') }}}} as landed_until

),

affected as (

    select asked.*
    from asked
    {{%- if is_incremental() %}}
    where
        asked.built_at > {{{{ last_built() }}}}
        or asked.{key} in (select fresh.{key} from versions as fresh where fresh.built_at > {{{{ last_built() }}}})
        or (
            asked.deadline <= (select landed.landed_until from landed)
            and asked.{key} not in (select this.{key} from {{{{ this }}}} as this)
        )
    {{%- endif %}}

),

-- the first writing that tells the outcome, in time
told as (

    select
        affected.{key},
        affected.prediction_time,
        {truth} as label,
        versions.available_at as event_time,
        versions.available_at,
        row_number() over (partition by affected.{key} order by versions.available_at) as version
    from affected
    inner join versions
        on
            affected.{key} = versions.{key}
            and affected.deadline >= versions.available_at
    where versions.{asked.label} is not null

),
{_of_yes_or_no(asked) if asked.untold_is_no and asked.is_yes_no else _of_number(asked)}
select * from final
"""


def _of_number(asked: Question) -> str:
    """A row of which nothing was told has no label."""
    return f"""
final as (

    select
        {asked.key},
        prediction_time,
        label,
        event_time,
        available_at,
        {{{{ built_at() }}}} as built_at
    from told
    where version = 1

)
"""


def _of_yes_or_no(asked: Question) -> str:
    """A row of which nothing was told by its deadline is a no."""
    key = asked.key
    return f"""
-- what was not told by then counts as no, once everything up to then has landed
still_open as (

    select
        affected.{key},
        affected.prediction_time,
        false as label,
        affected.deadline as event_time,
        affected.deadline as available_at
    from affected
    where
        affected.deadline <= (select landed.landed_until from landed)
        and affected.{key} not in (select told.{key} from told)

),

unioned as (

    select
        {key},
        prediction_time,
        label,
        event_time,
        available_at
    from told
    where version = 1

    union all

    select * from still_open

),

final as (

    select
        *,
        {{{{ built_at() }}}} as built_at
    from unioned

)
"""


def label_yml(asked: Question) -> str:
    """Its columns."""
    row = naming.words(asked.entity)
    what = f"Whether {asked.positive} {asked.in_time}" if asked.is_yes_no else naming.words(asked.label).capitalize()
    kind = "boolean" if asked.is_yes_no else "double" if asked.is_number else "varchar"
    described = [
        (asked.key, "varchar", f"The {row}."),
        ("prediction_time", INSTANT, "When it was known first."),
        ("label", kind, f"{what}."),
        ("event_time", INSTANT, "When the outcome was written, or the horizon was over."),
        ("available_at", INSTANT, "The same instant."),
        BUILT,
    ]
    description = f"One row per {row} of which the outcome is known {asked.in_time}."
    return model(
        asked.labels, description, (asked.key,),
        columns(described, (asked.key, "prediction_time", "label", "event_time", "available_at")),
        meta={"horizon": asked.horizon},
    )  # fmt: skip


# -- feature views ----------------------------------------------------------------------------


def intake_sql(asked: Question, facts: Facts) -> str:
    """What the row says of itself when it is known first."""
    selected = "\n".join(
        f"        {feature.sql if feature.sql == feature.name else f'{feature.sql} as {feature.name}'},"
        for feature in facts.features
    )
    return f"""{{{{ config(unique_key='{asked.key}') }}}}

with

{_first_known(asked)}
final as (

    select
        {asked.key},
{selected}
        event_time,
        available_at,
        {{{{ built_at() }}}} as built_at
    from numbered
    where version = 1

)

select * from final
"""


def intake_yml(asked: Question, facts: Facts) -> str:
    """Its columns."""
    row = naming.words(asked.entity)
    described = [
        (asked.key, "varchar", f"The {row}."),
        *((feature.name, feature.data_type, feature.description) for feature in facts.features),
        ("event_time", INSTANT, "When it happened."),
        ("available_at", INSTANT, "When it was known first."),
        BUILT,
    ]
    return model(
        asked.view(asked.entity, "intake"), f"One row per {row}, as it was known first.", (asked.key,),
        columns(described, (asked.key, "event_time", "available_at")),
    )  # fmt: skip


def history_sql(asked: Question, column: str) -> str:
    """Past outcomes of the rows that share a value, from matured cohorts alone."""
    entity = naming.entity_of(column)
    outcome = asked.label
    more = f',\n    matures="{asked.matures}"' if asked.due else ""
    lately = f"lately_days={LATELY_DAYS}, counts='lately'"
    if asked.classes:
        more += f",\n    classes={json.dumps(asked.slugs, ensure_ascii=False)}"
    return f"""{{{{ config(unique_key='{entity}_id') }}}}

{{{{ matured_label_history(
    '{entity}', key='{asked.key}', spine='{asked.spine}', labels='{asked.labels}', members='{asked.spine}',
    source_name='{asked.source}', horizon_days={asked.horizon_days}, outcome='{outcome}', {lately}{more}
) }}}}
"""


def history_yml(asked: Question, column: str) -> str:
    """Its columns."""
    entity = naming.entity_of(column)
    words = naming.words(entity)
    rates = [
        column
        for name, what in asked.rated.items()
        for column in (
            (f"{entity}_{name}_rate", "double", f"{what}."),
            (
                f"{entity}_{name}_rate_{LATELY_DAYS}d",
                "double",
                f"{what}, over the cohorts that matured in the last {LATELY_DAYS} days.",
            ),
        )
    ]
    described = [
        (f"{entity}_id", "varchar", f"The {words}."),
        (
            f"{entity}_matured_count_{LATELY_DAYS}d",
            "bigint",
            f"Rows whose outcome has matured in the last {LATELY_DAYS} days.",
        ),
        *rates,
        ("event_time", INSTANT, "When the cohort matured."),
        ("available_at", INSTANT, "The same instant."),
        BUILT,
    ]
    return model(
        asked.view(entity, "history"),
        f"One row per {words} and instant at which cohorts of its rows matured; matured outcomes only.",
        (f"{entity}_id", "event_time"), columns(described, (f"{entity}_id", "event_time", "available_at")),
    )  # fmt: skip


def load_sql(asked: Question, column: str) -> str:
    """How many rows came that share a value."""
    entity = naming.entity_of(column)
    return f"""{{{{ config(unique_key='{entity}_id') }}}}

with

spine as (

    select * from {{{{ ref('{asked.spine}') }}}}

),

affected as (

    select *
    from spine
    where
        {entity}_id is not null
        {{%- if is_incremental() %}}
        and {entity}_id in (select fresh.{entity}_id from spine as fresh where fresh.built_at > {{{{ last_built() }}}})
        {{%- endif %}}

),

per_instant as (

    select
        {entity}_id,
        available_at,
        count(*) as arrivals
    from affected
    group by {entity}_id, available_at

),

final as (

    select
        {entity}_id,
        cast(sum(arrivals) over last_day as bigint) as {entity}_rows_1d,
        cast(sum(arrivals) over lately as bigint) as {entity}_rows_{LATELY_DAYS}d,
        available_at as event_time,
        available_at,
        {{{{ built_at() }}}} as built_at
    from per_instant
    window
        last_day as (
            partition by {entity}_id
            order by available_at range between interval '1 day' preceding and current row
        ),
        lately as (
            partition by {entity}_id
            order by available_at range between interval '{LATELY_DAYS} days' preceding and current row
        )

)

select * from final
"""


def load_yml(asked: Question, column: str) -> str:
    """Its columns."""
    entity = naming.entity_of(column)
    words = naming.words(entity)
    described = [
        (f"{entity}_id", "varchar", f"The {words}."),
        (f"{entity}_rows_1d", "bigint", "Its rows of the last 24 hours, this one with them."),
        (f"{entity}_rows_{LATELY_DAYS}d", "bigint", f"Its rows of the last {LATELY_DAYS} days."),
        ("event_time", INSTANT, "When a row came."),
        ("available_at", INSTANT, "The same instant."),
        BUILT,
    ]
    return model(
        asked.view(entity, "load"), f"One row per {words} and instant at which rows of it came.",
        (f"{entity}_id", "event_time"), columns(described, (f"{entity}_id", "event_time", "available_at")),
    )  # fmt: skip
