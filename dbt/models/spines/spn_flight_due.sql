{{ config(unique_key='flight_id') }}

with

flights as (

    select * from {{ ref('stg_flights__flight') }}

),

affected as (

    select *
    from flights
    {%- if is_incremental() %}
    where flight_id in (select fresh.flight_id from flights as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

published as (

    select
        *,
        scheduled_departure_at - interval '2 hours' as prediction_time
    from affected
    qualify row_number() over (partition by flight_id order by available_at) = 1

),

final as (

    select
        flight_id,
        aircraft_id,
        carrier_id,
        airport_id,
        prediction_time,
        prediction_time as event_time,
        prediction_time as available_at,
        {{ built_at() }} as built_at
    from published
    where prediction_time >= available_at

)

select * from final
