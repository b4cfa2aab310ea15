{{ config(unique_key='booking_id') }}

with

bookings as (

    select * from {{ ref('stg_hotels__booking') }}

),

affected as (

    select *
    from bookings
    {%- if is_incremental() %}
    where built_at > {{ last_built() }}
    {%- endif %}

),

final as (

    select
        booking_id,
        hotel,
        lead_days,
        cast(extract(month from arrival_date) as integer) as arrival_month,
        cast(extract(isodow from arrival_date) as integer) as arrival_weekday,
        cast(extract(isodow from event_time) as integer) as booked_weekday,
        weekend_night_count,
        weekday_night_count,
        adult_count,
        child_count,
        baby_count,
        meal,
        market_segment,
        distribution_channel,
        is_repeated_guest,
        kept_booking_count,
        reserved_room_type,
        agent_id as agent,
        company_id is not null as has_company,
        customer_type,
        rate_eur,
        reservation_status,
        reservation_status_date,
        assigned_room_type,
        booking_changes,
        required_car_parking_spaces,
        total_of_special_requests,
        days_in_waiting_list,
        country,
        deposit_type,
        previous_cancellations,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from affected

)

select * from final
