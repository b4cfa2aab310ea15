{{ config(unique_key=['airport_id', 'event_time']) }}

with

weather as (

    select * from {{ ref('stg_flights__weather') }}

),

final as (

    select
        airport_id,
        temperature_f,
        humidity_percent,
        wind_direction_degrees,
        wind_speed_mph,
        precipitation_inches,
        pressure_mb,
        visibility_miles,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from weather
    {%- if is_incremental() %}
    where built_at > {{ last_built() }}
    {%- endif %}

)

select * from final
