{{ config(unique_key='customer_id') }}

with

payments as (

    select * from {{ ref('stg_subscription__payment') }}

),

affected as (

    select *
    from payments
    {%- if is_incremental() %}
    where customer_id in (select fresh.customer_id from payments as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

-- what each statement changes: a failure opens a debt, a later statement about the same payment may settle it
statements as (

    select
        *,
        lag(is_failed) over (partition by payment_id order by available_at) as was_failed
    from affected

),

per_instant as (

    select
        customer_id,
        available_at,
        count(*) filter (where was_failed is null) as attempts,
        count(*) filter (where is_failed and was_failed is null) as failures,
        sum(cast(is_failed as integer) - cast(coalesce(was_failed, false) as integer)) as unpaid,
        max(amount_eur) as amount_eur
    from statements
    group by customer_id, available_at

),

final as (

    select
        customer_id,
        cast(sum(attempts) over so_far as bigint) as payment_count,
        cast(sum(failures) over lately as bigint) as failed_payments_90d,
        cast(sum(unpaid) over so_far as bigint) as unpaid_payments,
        amount_eur as last_amount_eur,
        available_at as event_time,
        available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        so_far as (partition by customer_id order by available_at),
        lately as (
            partition by customer_id
            order by available_at range between interval '90 days' preceding and current row
        )

)

select * from final
