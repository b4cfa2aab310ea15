{{ config(unique_key='invoice_id') }}

with

source as (

    select * from {{ source('retail', 'invoice_line') }}

),

affected as (

    select source.*
    from source
    {%- if is_incremental() %}
    where
        source.invoice_no in (
            select fresh.invoice_no
            from source as fresh
            where fresh.ingested_at > {{ last_ingested() }}
        )
    {%- endif %}

),

-- a line that repeats another of its invoice in every column, the minute included, counts once
numbered as (

    select
        *,
        row_number() over (
            partition by
                invoice_no, stock_code, description, quantity, unit_price, customer_id, country, event_time, available_at
            order by ingested_at, source_file, row_number
        ) as copy
    from affected
    where available_at is not null

),

final as (

    select
        invoice_no as invoice_id,
        stock_code as item_id,
        description,
        quantity as units,
        unit_price as unit_price_gbp,
        quantity * unit_price as amount_gbp,
        customer_id as buyer_id,
        country,

        -- postage, discounts, fees and vouchers have words instead of numbers
        {{ is_numbered('stock_code') }} as is_item,
        left(invoice_no, 1) = 'C' as is_return,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from numbered
    where copy = 1

)

select * from final
