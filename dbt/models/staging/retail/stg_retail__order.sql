{{ config(unique_key='invoice_id') }}

with

lines as (

    select * from {{ ref('stg_retail__line') }}

),

affected as (

    select *
    from lines
    where
        buyer_id is not null
        and is_item
        and case when is_return then units < 0 else units > 0 and unit_price_gbp > 0 end
        {%- if is_incremental() %}
        and built_at > {{ last_built() }}
        {%- endif %}

),

-- an invoice happens with its first line, and is known with its last
final as (

    select
        invoice_id,
        min(buyer_id) as buyer_id,
        min(country) as country,
        is_return,
        abs(sum(amount_gbp)) as amount_gbp,
        count(distinct item_id) as item_count,
        cast(abs(sum(units)) as bigint) as unit_count,
        min(event_time) as event_time,
        max(available_at) as available_at,
        {{ built_at() }} as built_at
    from affected
    group by invoice_id, is_return

)

select * from final
