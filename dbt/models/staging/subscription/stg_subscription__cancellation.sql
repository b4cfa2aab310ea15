{{ config(incremental_strategy='append') }}

with

source as (

    select * from {{ source('subscription', 'cancellation') }}

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
        reason,
        event_time,
        available_at,
        ingested_at,
        {{ built_at() }} as built_at
    from fresh

)

select * from final
