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

-- a state is reviewed once, when the CRM first writes it; what it writes later about the same moment is a correction
first_written as (

    select
        customer_id,
        event_time,
        min(available_at) as written_at
    from affected
    group by customer_id, event_time

),

final as (

    select
        customer_id,
        written_at as prediction_time,
        max(event_time) as event_time,
        written_at as available_at,
        {{ built_at() }} as built_at
    from first_written
    group by customer_id, written_at

)

select * from final
