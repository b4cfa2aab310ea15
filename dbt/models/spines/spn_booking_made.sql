{{ config(unique_key='booking_id') }}

with

bookings as (

    select * from {{ ref('stg_hotels__booking') }}

),

-- the export was sampled by arrival: of bookings made earlier only those with a long lead are there
affected as (

    select *
    from bookings
    where
        available_at >= cast('{{ var("hotel_cohorts_from") }}' as timestamptz)
        {%- if is_incremental() %}
        and built_at > {{ last_built() }}
        {%- endif %}

),

final as (

    select
        booking_id,
        agent_id,
        hotel || ' / ' || coalesce(market_segment, 'unknown') as segment_id,
        {{ arrival_week('hotel', 'arrival_date') }} as week_id,
        available_at as prediction_time,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from affected

)

select * from final
