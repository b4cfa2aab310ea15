{{ config(unique_key='booking_id') }}

with

outcomes as (

    select * from {{ ref('stg_hotels__outcome') }}

),

booked as (

    select
        *,
        prediction_time + interval '{{ var("hotel_cancellation_horizon_days") }} days' as deadline
    from {{ ref('spn_booking_made') }}

),

landed as (

    select {{ landed_until('hotels') }} as landed_until

),

affected as (

    select booked.*
    from booked
    {%- if is_incremental() %}
    where
        booked.built_at > {{ last_built() }}
        or booked.booking_id in (select fresh.booking_id from outcomes as fresh where fresh.built_at > {{ last_built() }})
        or (
            booked.deadline <= (select landed.landed_until from landed)
            and booked.booking_id not in (select this.booking_id from {{ this }} as this)
        )
    {%- endif %}

),

-- cancelled, nobody came, or the guests have left: the truth, before the thirty days are over
settled_in_time as (

    select
        affected.booking_id,
        affected.prediction_time,
        outcomes.is_cancelled as label,
        outcomes.event_time,
        outcomes.available_at
    from affected
    inner join outcomes
        on
            affected.booking_id = outcomes.booking_id
            and affected.deadline >= outcomes.available_at

),

-- known only once everything up to the deadline has landed
still_open as (

    select
        affected.booking_id,
        affected.prediction_time,
        false as label,
        affected.deadline as event_time,
        affected.deadline as available_at
    from affected
    where
        affected.deadline <= (select landed.landed_until from landed)
        and affected.booking_id not in (select settled_in_time.booking_id from settled_in_time)

),

unioned as (

    select * from settled_in_time
    union all
    select * from still_open

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from unioned

)

select * from final
