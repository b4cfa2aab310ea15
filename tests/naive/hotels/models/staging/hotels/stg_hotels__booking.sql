{{ config(unique_key='booking_id') }}

with

source as (

    select * from {{ source('hotels', 'hotel_booking') }}

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

-- every column as it lies, as if all of it had been known when the booking was made
typed as (

    select
        booking_number as booking_id,
        hotel,
        cast(lead_time as integer) as lead_days,
        cast(
            strptime(
                arrival_date_day_of_month || ' ' || arrival_date_month || ' ' || arrival_date_year, '%d %B %Y'
            ) as date
        ) as arrival_date,
        cast(stays_in_weekend_nights as integer) as weekend_night_count,
        cast(stays_in_week_nights as integer) as weekday_night_count,
        cast(adults as integer) as adult_count,
        cast(children as integer) as child_count,
        cast(babies as integer) as baby_count,
        nullif(meal, 'Undefined') as meal,
        nullif(market_segment, 'Undefined') as market_segment,
        nullif(distribution_channel, 'Undefined') as distribution_channel,
        is_repeated_guest = '1' as is_repeated_guest,
        cast(previous_bookings_not_canceled as integer) as kept_booking_count,
        reserved_room_type,
        agent as agent_id,
        company as company_id,
        customer_type,

        -- one rate is negative, one is 5400: no rates
        case when cast(adr as double) between 0 and 1000 then cast(adr as double) end as rate_eur,

        reservation_status,
        reservation_status_date,
        assigned_room_type,
        cast(booking_changes as integer) as booking_changes,
        cast(required_car_parking_spaces as integer) as required_car_parking_spaces,
        cast(total_of_special_requests as integer) as total_of_special_requests,
        cast(days_in_waiting_list as integer) as days_in_waiting_list,
        country,
        deposit_type,
        cast(previous_cancellations as integer) as previous_cancellations,

        event_time,
        available_at,
        ingested_at,
        source_file,
        row_number
    from affected

),

-- a booking that is delivered again keeps what it said first
numbered as (

    select
        *,
        row_number() over (
            partition by booking_id
            order by available_at, event_time, source_file, row_number
        ) as copy
    from typed
    where available_at is not null

),

final as (

    select
        * exclude (copy, source_file, row_number),
        {{ built_at() }} as built_at
    from numbered
    where copy = 1

)

select * from final
