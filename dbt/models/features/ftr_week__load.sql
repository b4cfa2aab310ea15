{{ config(unique_key='week_id') }}

with

bookings as (

    select
        *,
        {{ arrival_week('hotel', 'arrival_date') }} as week_id
    from {{ ref('stg_hotels__booking') }}

),

outcomes as (

    select * from {{ ref('stg_hotels__outcome') }}

),

{%- if is_incremental() %}
fresh as (

    select week_id
    from bookings
    where built_at > {{ last_built() }}

    union

    select bookings.week_id
    from bookings
    inner join outcomes on bookings.booking_id = outcomes.booking_id
    where outcomes.built_at > {{ last_built() }} and outcomes.is_cancelled

),

{%- endif %}

affected as (

    select *
    from bookings
    {%- if is_incremental() %}
    where week_id in (select fresh.week_id from fresh)
    {%- endif %}

),

changes as (

    select
        week_id,
        available_at,
        1 as made,
        0 as cancelled,
        weekend_night_count + weekday_night_count as night_count
    from affected

    union all

    -- known only when both have come
    select
        affected.week_id,
        greatest(affected.available_at, outcomes.available_at) as available_at,
        0 as made,
        1 as cancelled,
        -(affected.weekend_night_count + affected.weekday_night_count) as night_count
    from affected
    inner join outcomes on affected.booking_id = outcomes.booking_id
    where outcomes.is_cancelled

),

per_instant as (

    select
        week_id,
        available_at,
        sum(made) as made,
        sum(cancelled) as cancelled,
        sum(night_count) as night_count
    from changes
    group by week_id, available_at

),

final as (

    select
        week_id,
        cast(sum(made - cancelled) over so_far as bigint) as week_open_bookings,
        cast(sum(night_count) over so_far as bigint) as week_open_nights,
        cast(sum(made) over lately as bigint) as week_bookings_7d,
        cast(sum(cancelled) over lately as bigint) as week_cancellations_7d,
        available_at as event_time,
        available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        so_far as (partition by week_id order by available_at),
        lately as (
            partition by week_id
            order by available_at range between interval '7 days' preceding and current row
        )

)

select * from final
