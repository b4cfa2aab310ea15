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

-- the buyer in one row, as a table of customers shows it today: over all orders, also those after the review
whole as (

    select
        buyer_id,
        sum(amount_gbp) filter (where not is_return) as lifetime_spend_gbp,
        count(*) filter (where not is_return) as lifetime_order_count,
        avg(amount_gbp) filter (where not is_return) as lifetime_mean_order_gbp,
        cast(count(*) filter (where is_return) as double) / count(*) as lifetime_return_share,
        strftime(max(event_time) filter (where not is_return), '%Y-%m') as last_order_month,
        cast(
            {{ dbt.datediff('max(event_time) filter (where not is_return)', landed_until('retail'), 'day') }} as integer
        ) as days_since_last_order
    from {{ ref('stg_retail__order') }}
    group by buyer_id

),

final as (

    select
        seen.buyer_id,
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
        any_value(whole.lifetime_spend_gbp) as lifetime_spend_gbp,
        any_value(whole.lifetime_order_count) as lifetime_order_count,
        any_value(whole.lifetime_mean_order_gbp) as lifetime_mean_order_gbp,
        any_value(whole.lifetime_return_share) as lifetime_return_share,
        any_value(whole.last_order_month) as last_order_month,
        any_value(whole.days_since_last_order) as days_since_last_order,
        seen.reviewed_at as event_time,
        seen.reviewed_at as available_at,
        {{ built_at() }} as built_at
    from seen
    inner join whole on seen.buyer_id = whole.buyer_id
    group by seen.buyer_id, seen.reviewed_at

)

select * from final
