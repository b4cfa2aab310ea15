{#- How the flights of a carrier or out of an airport that landed lately had fared; one row per instant at which one
landed. `entity` is carrier or airport. -#}
{% macro landed_load(entity) -%}
with

flights as (

    select * from {{ ref('stg_flights__flight') }}

),

landed as (

    select *
    from flights
    where landed_at is not null

),

{%- if is_incremental() %}
-- a landing counts for a day: rows from the first one written since the last build to a day after the last
fresh as (

    select
        {{ entity }}_id,
        min(landed_at) as since,
        max(landed_at) + interval '24 hours' as until
    from landed
    where built_at > {{ last_built() }}
    group by {{ entity }}_id

),

{%- endif %}

affected as (

    select landed.*
    from landed
    {%- if is_incremental() %}
    inner join fresh
        on
            landed.{{ entity }}_id = fresh.{{ entity }}_id
            and landed.landed_at >= fresh.since - interval '24 hours'
            and landed.landed_at <= fresh.until
    {%- endif %}

),

per_instant as (

    select
        {{ entity }}_id,
        landed_at,
        count(*) as flights,
        count(*) filter (where arrival_delay_minutes > 15) as late,
        sum(departure_delay_minutes) as delay_minutes
    from affected
    group by {{ entity }}_id, landed_at

),

counted as (

    select
        {{ entity }}_id,
        cast(sum(flights) over last_hours as bigint) as {{ entity }}_landed_3h,
        cast(sum(late) over last_hours as double) / sum(flights) over last_hours as {{ entity }}_late_share_3h,
        cast(sum(late) over last_day as double) / sum(flights) over last_day as {{ entity }}_late_share_24h,
        sum(delay_minutes) over last_hours / sum(flights) over last_hours as {{ entity }}_departure_delay_minutes_3h,
        landed_at as event_time,
        landed_at as available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        last_hours as (
            partition by {{ entity }}_id
            order by landed_at range between interval '3 hours' preceding and current row
        ),
        last_day as (
            partition by {{ entity }}_id
            order by landed_at range between interval '24 hours' preceding and current row
        )

),

final as (

    select counted.*
    from counted
    {%- if is_incremental() %}
    inner join fresh on counted.{{ entity }}_id = fresh.{{ entity }}_id and counted.event_time >= fresh.since
    {%- endif %}

)

select * from final
{%- endmacro %}
