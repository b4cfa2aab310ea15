{{ config(unique_key='booking_id') }}

with

source as (

    select * from {{ source('hotels', 'hotel_outcome') }}

),

affected as (

    select source.*
    from source
    {%- if is_incremental() %}
    where
        source.booking_number in (
            select fresh.booking_number
            from source as fresh
            where fresh.ingested_at > {{ last_ingested() }}
        )
    {%- endif %}

),

-- a booking is settled once; a status that comes again changes nothing
numbered as (

    select
        *,
        row_number() over (
            partition by booking_number
            order by available_at, event_time, source_file, row_number
        ) as copy
    from affected
    where available_at is not null

),

final as (

    select
        booking_number as booking_id,
        reservation_status as status,
        reservation_status in ('Canceled', 'No-Show') as is_cancelled,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from numbered
    where copy = 1

)

select * from final
