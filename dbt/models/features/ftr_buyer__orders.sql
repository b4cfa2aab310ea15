{{ config(unique_key='buyer_id') }}

with

reviews as (

    select * from {{ ref('spn_buyer_reviewed') }}

),

orders as (

    select * from {{ ref('stg_retail__order') }} where not is_return

),

{%- if is_incremental() %}
fresh as (

    select buyer_id
    from reviews
    where built_at > {{ last_built() }}

    union

    select buyer_id
    from orders
    where built_at > {{ last_built() }}

),

{%- endif %}

affected as (

    select
        buyer_id,
        prediction_time as reviewed_at
    from reviews
    {%- if is_incremental() %}
    where buyer_id in (select fresh.buyer_id from fresh)
    {%- endif %}

),

seen as (

    select
        affected.buyer_id,
        affected.reviewed_at,
        orders.event_time as ordered_at,
        orders.amount_gbp,
        orders.country,
        orders.event_time > affected.reviewed_at - interval '30 days' as is_of_30d,
        orders.event_time > affected.reviewed_at - interval '90 days' as is_of_90d
    from affected
    inner join orders
        on
            affected.buyer_id = orders.buyer_id
            and affected.reviewed_at >= orders.available_at

),

final as (

    select
        buyer_id,
        max_by(country, ordered_at) as country,
        count(*) as order_count,
        count(*) filter (where is_of_30d) as orders_30d,
        count(*) filter (where is_of_90d) as orders_90d,
        sum(amount_gbp) as spend_gbp,
        coalesce(sum(amount_gbp) filter (where is_of_90d), 0) as spend_90d_gbp,
        avg(amount_gbp) as mean_order_gbp,
        cast({{ dbt.datediff('max(ordered_at)', 'reviewed_at', 'hour') }} as bigint) as last_order_age_hours,
        cast({{ dbt.datediff('min(ordered_at)', 'max(ordered_at)', 'hour') }} as double)
        / 24 / nullif(count(*) - 1, 0) as mean_gap_days,
        cast({{ dbt.datediff('min(ordered_at)', 'reviewed_at', 'day') }} as integer) as tenure_days,
        count(*) = 1 as is_first_order,
        reviewed_at as event_time,
        reviewed_at as available_at,
        {{ built_at() }} as built_at
    from seen
    group by buyer_id, reviewed_at

)

select * from final
