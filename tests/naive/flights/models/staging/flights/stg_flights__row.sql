{{ config(materialized='table') }}

with

source as (

    select * from {{ source('flights', 'flight') }}

),

final as (

    select
        year || '-' || lpad(month, 2, '0') || '-' || lpad(day, 2, '0') || '-' || carrier || flight || '-' || origin
            as flight_id,
        cast(dep_delay as double) as dep_delay,
        cast(dep_time as integer) as dep_time,
        cast(arr_time as integer) as arr_time,
        cast(air_time as double) as air_time,
        cast(cast(hour as double) as integer) as hour,
        cast(cast(minute as double) as integer) as minute,
        event_time,
        available_at
    from source
    qualify row_number() over (partition by flight_id order by available_at) = 1

)

select * from final
