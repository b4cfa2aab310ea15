{{ config(unique_key='buyer_id') }}

with

orders as (

    select * from {{ ref('stg_retail__order') }} where not is_return

),

-- every seventh day after the first order, whatever the weekday: each night has its seventh of the buyers
known as (

    select
        buyer_id,
        min(event_time) as first_ordered_at,
        max(built_at) as built_at
    from orders
    group by buyer_id

),

reviewed as (

    select
        buyer_id,
        unnest(generate_series(
            first_ordered_at + interval '7 days',
            {{ landed_until('retail') }},
            interval '7 days'
        )) as prediction_time,
        built_at as inputs_built_at
    from known

),

due as (

    select *
    from reviewed
    where
        prediction_time >= {{ landed_from('retail') }}
        and prediction_time < {{ landed_until('retail') }}

),

{%- if is_incremental() %}
-- touched by orders written since the last build, and by reviews that have come due since
fresh as (

    select distinct buyer_id
    from due
    where
        inputs_built_at > {{ last_built() }}
        or prediction_time > (select max(this.prediction_time) from {{ this }} as this)

),

{%- endif %}

-- while the last order is not too long ago
active as (

    select due.*
    from due
    asof inner join orders
        on
            due.buyer_id = orders.buyer_id
            and due.prediction_time >= orders.available_at
    where due.prediction_time < orders.event_time + interval '{{ var("repurchase_active_days") }} days'

),

final as (

    select
        buyer_id,
        prediction_time,
        prediction_time as event_time,
        prediction_time as available_at,
        {{ built_at() }} as built_at
    from active
    {%- if is_incremental() %}
    where buyer_id in (select fresh.buyer_id from fresh)
    {%- endif %}

)

select * from final
