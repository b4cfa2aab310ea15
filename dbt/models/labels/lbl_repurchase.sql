{{ config(unique_key='buyer_id') }}

with

reviews as (

    select
        *,
        prediction_time + interval '{{ var("repurchase_horizon_days") }} days' as matures_at
    from {{ ref('spn_buyer_reviewed') }}

),

orders as (

    select * from {{ ref('stg_retail__order') }} where not is_return

),

landed as (

    select {{ landed_until('retail') }} as landed_until

),

{%- if is_incremental() %}
-- touched by reviews and orders written since the last build, and by cohorts that have matured since
fresh as (

    select buyer_id
    from reviews
    where built_at > {{ last_built() }} or matures_at > (select max(this.available_at) from {{ this }} as this)

    union

    select buyer_id
    from orders
    where built_at > {{ last_built() }}

),

{%- endif %}

affected as (

    select *
    from reviews
    {%- if is_incremental() %}
    where buyer_id in (select fresh.buyer_id from fresh)
    {%- endif %}

),

bought as (

    select
        affected.buyer_id,
        affected.prediction_time,
        true as label,
        min(orders.event_time) as event_time,
        min(orders.available_at) as available_at
    from affected
    inner join orders
        on
            affected.buyer_id = orders.buyer_id
            and affected.prediction_time < orders.event_time
            and affected.matures_at >= orders.available_at
    group by affected.buyer_id, affected.prediction_time

),

-- that nothing was bought is known when the days are over and everything of them has landed
stayed_away as (

    select
        affected.buyer_id,
        affected.prediction_time,
        false as label,
        affected.matures_at as event_time,
        affected.matures_at as available_at
    from affected
    left join bought
        on
            affected.buyer_id = bought.buyer_id
            and affected.prediction_time = bought.prediction_time
    where
        bought.buyer_id is null
        and affected.matures_at <= (select landed.landed_until from landed)

),

unioned as (

    select * from bought
    union all
    select * from stayed_away

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from unioned

)

select * from final
