{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('flights', 'flight') }}

),

fresh as (

    select *
    from source
    where
        available_at is not null
        {%- if is_incremental() %}
        and ingested_at > {{ last_ingested() }}
        {%- endif %}

),

typed as (

    select
        make_date(cast(year as integer), cast(month as integer), cast(day as integer)) as flight_date,
        carrier as carrier_id,
        flight as flight_number,
        tailnum as aircraft_id,
        origin as airport_id,
        dest as destination,
        cast(distance as double) as distance_miles,
        cast(dep_time as integer) as left_clock,
        cast(dep_delay as double) as departure_delay_minutes,
        cast(arr_delay as double) as arrival_delay_minutes,
        cast(air_time as double) as air_time_minutes,
        event_time,
        available_at,
        ingested_at
    from fresh

),

-- The schedule was public long before; the export keeps it only as actual departure minus delay. The day is that of
-- the scheduled departure, so that a flight that left after midnight is counted back into it.
timed as (

    select
        *,
        (left_clock // 100 * 60 + left_clock % 100 - cast(departure_delay_minutes as integer) + 2880) % 1440
            as scheduled_minute
    from typed

),

scheduled as (

    select
        *,
        cast(scheduled_minute // 60 as integer) as scheduled_hour,
        {{ wall_clock('flight_date', 'scheduled_minute', 'America/Los_Angeles') }} as scheduled_departure_at
    from timed

),

flown as (

    select
        *,
        scheduled_departure_at + to_minutes(cast(departure_delay_minutes as bigint)) as departed_at,
        departed_at + to_minutes(cast(air_time_minutes as bigint)) as down_at
    from scheduled

),

-- both deliveries of a flight hold what the export knew in the end: what had not come to pass when a row was written
-- is NULL in it. When it landed is told by the row that was written then: its write time.
known as (

    select
        flight_date || '-' || carrier_id || flight_number || '-' || airport_id as flight_id,
        flight_date,
        carrier_id,
        flight_number,
        aircraft_id,
        airport_id,
        destination,
        distance_miles,
        scheduled_departure_at,
        scheduled_hour,
        {{ known_by('departed_at') }} as departed_at,
        {{ known_by('departed_at', 'departure_delay_minutes') }} as departure_delay_minutes,
        {{ known_by('down_at', 'air_time_minutes') }} as air_time_minutes,
        {{ known_by('down_at', 'arrival_delay_minutes') }} as arrival_delay_minutes,
        {{ known_by('down_at', 'available_at') }} as landed_at,
        event_time,
        available_at,
        ingested_at
    from flown

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from known

)

select * from final
