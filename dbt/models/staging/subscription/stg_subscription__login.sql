{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('subscription', 'login') }}

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
        cast(login_id as varchar) as login_id,
        cast(customer_id as varchar) as customer_id,
        device,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from fresh

)

select * from final
