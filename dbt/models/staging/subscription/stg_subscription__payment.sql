{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('subscription', 'payment') }}

),

fresh as (

    select *
    from source
    where
        available_at is not null
        {%- if is_incremental() %}
        and ingested_at > {{ last_ingested() }}
        {%- endif %}

),

final as (

    select
        cast(payment_id as varchar) as payment_id,
        cast(customer_id as varchar) as customer_id,
        amount_eur,
        is_failed,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from fresh

)

select * from final
