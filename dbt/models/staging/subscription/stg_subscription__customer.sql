{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('subscription', 'customer') }}

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
        cast(customer_id as varchar) as customer_id,
        plan,
        country,
        channel,
        price_eur,
        signed_up_at,
        last_login_at,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from fresh

)

select * from final
