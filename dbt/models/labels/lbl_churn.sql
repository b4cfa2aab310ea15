{{ config(unique_key='customer_id') }}

with

reviews as (

    select
        *,
        prediction_time + interval '{{ var("churn_horizon_days") }} days' as deadline,
        prediction_time
        + interval '{{ var("churn_horizon_days") }} days'
        + interval '{{ var("churn_delay_days") }} days' as matures_at
    from {{ ref('spn_customer_reviewed') }}

),

cancellations as (

    select * from {{ ref('stg_subscription__cancellation') }}

),

landed as (

    select {{ landed_until('subscription') }} as landed_until

),

{%- if is_incremental() %}
-- touched by reviews and cancellations written since the last build, and by cohorts that have matured since
fresh as (

    select customer_id
    from reviews
    where built_at > {{ last_built() }} or matures_at > (select max(this.available_at) from {{ this }} as this)

    union

    select customer_id
    from cancellations
    where built_at > {{ last_built() }}

),

{%- endif %}

affected as (

    select *
    from reviews
    {%- if is_incremental() %}
    where customer_id in (select fresh.customer_id from fresh)
    {%- endif %}

),

cancelled as (

    select
        affected.customer_id,
        affected.prediction_time,
        true as label,
        min(cancellations.event_time) as event_time,
        min(cancellations.available_at) as available_at
    from affected
    inner join cancellations
        on
            affected.customer_id = cancellations.customer_id
            and affected.deadline >= cancellations.event_time
            and affected.matures_at >= cancellations.available_at
    group by affected.customer_id, affected.prediction_time

),

-- that a customer stayed is known once every cancellation of those days has had its time to become known
stayed as (

    select
        affected.customer_id,
        affected.prediction_time,
        false as label,
        affected.deadline as event_time,
        affected.matures_at as available_at
    from affected
    left join cancelled
        on
            affected.customer_id = cancelled.customer_id
            and affected.prediction_time = cancelled.prediction_time
    where
        cancelled.customer_id is null
        and affected.matures_at <= (select landed.landed_until from landed)

),

unioned as (

    select * from cancelled
    union all
    select * from stayed

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from unioned

)

select * from final
