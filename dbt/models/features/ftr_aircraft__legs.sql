{{ config(unique_key='aircraft_id') }}

with

flights as (

    select * from {{ ref('stg_flights__flight') }}

),

landed as (

    select *
    from flights
    where landed_at is not null and aircraft_id is not null

),

affected as (

    select *
    from landed
    {%- if is_incremental() %}
    where aircraft_id in (select fresh.aircraft_id from landed as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

per_instant as (

    select
        aircraft_id,
        landed_at,
        count(*) as legs,
        max(arrival_delay_minutes) as arrival_delay_minutes,
        max(departure_delay_minutes) as departure_delay_minutes,
        count(*) filter (where arrival_delay_minutes > 15) as late_legs
    from affected
    group by aircraft_id, landed_at

),

final as (

    select
        aircraft_id,
        arrival_delay_minutes as last_leg_arrival_delay_minutes,
        departure_delay_minutes as last_leg_departure_delay_minutes,
        cast(sum(legs) over lately as bigint) as aircraft_legs_3d,
        cast(sum(late_legs) over lately as double) / sum(legs) over lately as aircraft_late_share_3d,
        landed_at as event_time,
        landed_at as available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        lately as (
            partition by aircraft_id
            order by landed_at range between interval '3 days' preceding and current row
        )

)

select * from final
