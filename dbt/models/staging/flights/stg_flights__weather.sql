{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('flights', 'weather') }}

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

final as (

    select
        origin as airport_id,
        cast(temp as double) as temperature_f,
        cast(humid as double) as humidity_percent,
        cast(wind_dir as double) as wind_direction_degrees,
        cast(wind_speed as double) as wind_speed_mph,
        cast(precip as double) as precipitation_inches,
        cast(pressure as double) as pressure_mb,
        cast(visib as double) as visibility_miles,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from fresh

)

select * from final
