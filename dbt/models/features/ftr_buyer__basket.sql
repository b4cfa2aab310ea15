{{ config(unique_key='buyer_id') }}

with

orders as (

    select * from {{ ref('stg_retail__order') }} where not is_return

),

lines as (

    select * from {{ ref('stg_retail__line') }} where is_item and units > 0 and unit_price_gbp > 0

),

affected as (

    select *
    from orders
    {%- if is_incremental() %}
    where buyer_id in (select fresh.buyer_id from orders as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

-- two orders of one minute are one basket
bought as (

    select distinct
        affected.buyer_id,
        affected.available_at,
        lines.item_id
    from affected
    inner join lines on affected.invoice_id = lines.invoice_id

),

marked as (

    select
        *,
        row_number() over (partition by buyer_id, item_id order by available_at) = 1 as is_new
    from bought

),

items as (

    select
        buyer_id,
        available_at,
        count(*) as item_count,
        count(*) filter (where is_new) as new_item_count
    from marked
    group by buyer_id, available_at

),

amounts as (

    select
        buyer_id,
        available_at,
        sum(amount_gbp) as amount_gbp,
        cast(sum(unit_count) as bigint) as unit_count
    from affected
    group by buyer_id, available_at

),

final as (

    select
        amounts.buyer_id,
        amounts.amount_gbp as last_order_gbp,
        items.item_count as last_order_items,
        amounts.unit_count as last_order_units,
        amounts.amount_gbp / amounts.unit_count as last_order_unit_gbp,
        1 - cast(items.new_item_count as double) / items.item_count as known_item_share,
        cast(
            sum(items.new_item_count) over (partition by amounts.buyer_id order by amounts.available_at) as bigint
        ) as item_count,
        amounts.available_at as event_time,
        amounts.available_at,
        {{ built_at() }} as built_at
    from amounts
    inner join items
        on
            amounts.buyer_id = items.buyer_id
            and amounts.available_at = items.available_at

)

select * from final
