{{ config(materialized='table') }}

with

flights as (

    select * from {{ ref('stg_flights__flight') }}

),

as_they_lie as (

    select * from {{ ref('stg_flights__row') }}

),

final as (

    select
        flights.flight_id,
        flights.carrier_id as carrier,
        flights.airport_id as origin,
        flights.destination,
        flights.distance_miles,
        flights.scheduled_hour,
        cast(extract(isodow from flights.flight_date) as integer) as scheduled_weekday,
        as_they_lie.dep_delay,
        as_they_lie.dep_time,
        as_they_lie.arr_time,
        as_they_lie.air_time,
        as_they_lie.hour,
        as_they_lie.minute,
        flights.event_time,
        flights.available_at,
        {{ built_at() }} as built_at
    from flights
    inner join as_they_lie
        on flights.flight_id = as_they_lie.flight_id and flights.available_at = as_they_lie.available_at
    where flights.scheduled_departure_at is not null

)

select * from final
