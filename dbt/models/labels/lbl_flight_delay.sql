{{ config(unique_key='flight_id') }}

with

flights as (

    select * from {{ ref('stg_flights__flight') }}

),

due as (

    select
        *,
        prediction_time + interval '{{ var("flight_delay_horizon_hours") }} hours' as deadline
    from {{ ref('spn_flight_due') }}

),

landed as (

    select {{ landed_until('flights') }} as landed_until

),

{%- if is_incremental() %}
-- touched by rows written since the last build, and by cohorts that have matured since
fresh as (

    select flight_id
    from flights
    where built_at > {{ last_built() }}

    union

    select flight_id
    from due
    where deadline > (select max(this.available_at) from {{ this }} as this)

),

{%- endif %}

affected as (

    select *
    from due
    {%- if is_incremental() %}
    where flight_id in (select fresh.flight_id from fresh)
    {%- endif %}

),

arrived as (

    select
        affected.flight_id,
        affected.prediction_time,
        flights.arrival_delay_minutes > 15 as label,
        flights.landed_at as event_time,
        flights.available_at
    from affected
    inner join flights
        on
            affected.flight_id = flights.flight_id
            and affected.deadline >= flights.landed_at

),

-- diverted, or a day late: known only once everything up to the deadline has landed
not_arrived as (

    select
        affected.flight_id,
        affected.prediction_time,
        true as label,
        affected.deadline as event_time,
        affected.deadline as available_at
    from affected
    where
        affected.deadline <= (select landed.landed_until from landed)
        and affected.flight_id not in (select arrived.flight_id from arrived)

),

unioned as (

    select * from arrived
    union all
    select * from not_arrived

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from unioned

)

select * from final
