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

    select *
    from affected
    where scheduled_departure_at is not null
    qualify row_number() over (partition by flight_id order by available_at) = 1

),

final as (

    select
        flight_id,
        carrier_id as carrier,
        airport_id as origin,
        destination,
        distance_miles,
        scheduled_hour,
        cast(extract(isodow from flight_date) as integer) as scheduled_weekday,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from published

)

select * from final
