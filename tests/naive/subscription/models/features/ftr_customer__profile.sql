{{ config(unique_key='customer_id') }}

with

customers as (

    select * from {{ ref('stg_subscription__customer') }}

),

affected as (

    select *
    from customers
    {%- if is_incremental() %}
    where customer_id in (select fresh.customer_id from customers as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

final as (

    select
        customer_id,
        plan,
        country,
        channel,
        price_eur,
        last_login_at is not null as has_last_login,
        cast({{ dbt.datediff('last_login_at', 'event_time', 'day') }} as integer) as last_login_age_days,
        cast({{ dbt.datediff('signed_up_at', 'event_time', 'day') }} as integer) as tenure_days,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from affected

)

select * from final
