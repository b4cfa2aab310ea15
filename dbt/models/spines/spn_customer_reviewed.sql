{{ config(unique_key='customer_id') }}

with

customers as (

    select * from {{ ref('stg_subscription__customer') }}

),

cancellations as (

    select * from {{ ref('stg_subscription__cancellation') }}

),

known as (

    select
        customer_id,
        min(signed_up_at) as signed_up_at,
        min(available_at) as available_at,
        max(built_at) as built_at
    from customers
    group by customer_id

),

known_cancelled as (

    select
        customer_id,
        min(available_at) as available_at,
        max(built_at) as built_at
    from cancellations
    group by customer_id

),

-- every seventh day after sign-up, from the day on which the CRM knows the customer, until a cancellation is known
reviewed as (

    select
        known.customer_id,
        unnest(generate_series(
            known.signed_up_at + interval '7 days',
            least({{ landed_until('subscription') }}, coalesce(known_cancelled.available_at, 'infinity')),
            interval '7 days'
        )) as prediction_time,
        known.available_at as known_at,
        known_cancelled.available_at as cancelled_at,
        greatest(known.built_at, known_cancelled.built_at) as inputs_built_at
    from known
    left join known_cancelled on known.customer_id = known_cancelled.customer_id

),

due as (

    select *
    from reviewed
    where
        prediction_time >= known_at
        and prediction_time >= {{ landed_from('subscription') }}
        and (cancelled_at is null or prediction_time < cancelled_at)
        and prediction_time < {{ landed_until('subscription') }}

),

{%- if is_incremental() %}
-- touched by rows written since the last build, and by reviews that have come due since
fresh as (

    select distinct customer_id
    from reviewed
    where
        inputs_built_at > {{ last_built() }}
        or prediction_time > (select max(this.prediction_time) from {{ this }} as this)

),

{%- endif %}

final as (

    select
        customer_id,
        prediction_time,
        prediction_time as event_time,
        prediction_time as available_at,
        {{ built_at() }} as built_at
    from due
    {%- if is_incremental() %}
    where customer_id in (select fresh.customer_id from fresh)
    {%- endif %}

)

select * from final
