{#- The point-in-time join, written once: dbt dispatches it per adapter, plugins/tiltyard/prepare/frame.py renders it with
plain Jinja.

A row of `view` may be used by a row of `spine` iff event_time <= prediction_time and available_at <=
prediction_time; of those the latest event_time, then the latest available_at wins, and of a full tie the greatest
values (NULL is the least). A NULL event_time or available_at is never used: it fails closed.

    spine       relation or subquery with `key`, `prediction_time`, and the columns of `spine_key`
    view        relation or subquery with `key`, event_time, available_at and `columns`
    key         the column that joins them
    columns     the view's columns to bring
    spine_key   the columns that tell spine rows apart
    prefix      the view's two times come out as <prefix>__event_time and <prefix>__available_at
    max_age_s   a view row older than this many seconds at the prediction time counts as missing; none: no limit
    pruned      `view` holds answers only, with their `known_at` (the macro below): the pruning is not done again

It gives every row of the spine exactly once, with NULLs where nothing may be used. Columns are quoted: one may be called
`order`. What begins with an underscore, and `known_at`, is a name of ours (prepare/names.py). -#}

{% macro point_in_time(spine, view, key, columns, spine_key, prefix, max_age_s=none, pruned=false) -%}
    {{ return(adapter.dispatch('point_in_time', 'tiltyard')(
        spine, view, key, columns, spine_key, prefix, max_age_s, pruned
    )) }}
{%- endmacro %}

{#- DuckDB: prune the view to its answers; then the row known last is the answer, and one ASOF join on one column
finds it. -#}
{% macro duckdb__point_in_time(spine, view, key, columns, spine_key, prefix, max_age_s=none, pruned=false) -%}
select
    spine.*
    {{- _brought(columns, prefix, max_age_s) }}
from {{ spine }} as spine
asof left join (
    {{ _kept(view, key, columns, spine) if pruned else answers(view, key, columns, spine) }}
) as known
    on
        spine.{{ adapter.quote(key) }} = known.{{ adapter.quote(key) }}
        and spine.prediction_time >= known.known_at
{%- endmacro %}

{#- The rows of a view that were ever the answer, with `known_at`, the instant since when: in the order in which rows
became known, those that are not older than what was known already. An answer hangs on nothing that became known
later, so that the answers of the rows known until an instant are the answers known until it.

    among       relation or subquery with `key`: only its entities; none: all of them -#}
{% macro answers(view, key, columns, among=none) -%}
select
    {{ adapter.quote(key) }},
    event_time,
    available_at
    {%- for column in columns %},
    {{ adapter.quote(column) }}
    {%- endfor %},
    greatest(event_time, available_at) as known_at
from {{ view }}
where
    event_time is not null
    and available_at is not null
    and {{ adapter.quote(key) }}
    {{- ' is not null' if among is none else ' in (select ' ~ adapter.quote(key) ~ ' from ' ~ among ~ ')' }}
window known_order as (
    partition by {{ adapter.quote(key) }}
    order by known_at, event_time, available_at
    {%- for column in columns %}, {{ adapter.quote(column) }} nulls first{% endfor %}
)
qualify
    event_time >= max(event_time) over (known_order rows between unbounded preceding and current row)
    and known_at is distinct from lead(known_at) over (known_order)
{%- endmacro %}

{% macro _kept(view, key, columns, among) -%}
select
    {{ adapter.quote(key) }},
    event_time,
    available_at
    {%- for column in columns %},
    {{ adapter.quote(column) }}
    {%- endfor %},
    known_at
from {{ view }}
where {{ adapter.quote(key) }} in (select {{ adapter.quote(key) }} from {{ among }})
{%- endmacro %}

{#- Any database with window functions; for it, answers are rows like any others. -#}
{% macro default__point_in_time(spine, view, key, columns, spine_key, prefix, max_age_s=none, pruned=false) -%}
select
    spine.*
    {{- _brought(columns, prefix, max_age_s) }}
from {{ spine }} as spine
left join (
    select
        {%- for column in spine_key %}
        candidate.{{ adapter.quote(column) }} as {{ adapter.quote('_spine_' ~ column) }},
        {%- endfor %}
        usable.event_time,
        usable.available_at
        {%- for column in columns %},
        usable.{{ adapter.quote(column) }}
        {%- endfor %},
        row_number() over (
            partition by
                {%- for column in spine_key %} candidate.{{ adapter.quote(column) }}{{ ',' if not loop.last }}{% endfor %}
            order by
                usable.event_time desc, usable.available_at desc
                {%- for column in columns %}, usable.{{ adapter.quote(column) }} desc nulls last{% endfor %}
        ) as {{ adapter.quote('_place') }}
    from {{ spine }} as candidate
    inner join {{ view }} as usable
        on
            candidate.{{ adapter.quote(key) }} = usable.{{ adapter.quote(key) }}
            and usable.event_time <= candidate.prediction_time
            and usable.available_at <= candidate.prediction_time
) as known
    on
        known.{{ adapter.quote('_place') }} = 1
        {%- for column in spine_key %}
        and spine.{{ adapter.quote(column) }} = known.{{ adapter.quote('_spine_' ~ column) }}
        {%- endfor %}
{%- endmacro %}

{#- The view's columns and its two times, NULL where the row is too old. -#}
{% macro _brought(columns, prefix, max_age_s) -%}
    {%- for column in columns + ['event_time', 'available_at'] -%}
    {%- set name = column if loop.index <= columns | length else prefix ~ '__' ~ column %},
    {% if max_age_s is none -%}
    known.{{ adapter.quote(column) }}{% if name != column %} as {{ adapter.quote(name) }}{% endif %}
    {%- else -%}
    case
        when known.event_time >= spine.prediction_time - interval '{{ max_age_s }} seconds' then known.{{ adapter.quote(column) }}
    end as {{ adapter.quote(name) }}
    {%- endif -%}
    {%- endfor %}
{%- endmacro %}
