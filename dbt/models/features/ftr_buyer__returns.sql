{{ config(unique_key='buyer_id') }}

with

orders as (

    select * from {{ ref('stg_retail__order') }}

),

affected as (

    select *
    from orders
    {%- if is_incremental() %}
    where buyer_id in (select fresh.buyer_id from orders as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

per_instant as (

    select
        buyer_id,
        available_at,
        count(*) filter (where is_return) as returns,
        coalesce(sum(amount_gbp) filter (where is_return), 0) as returned_gbp,
        coalesce(sum(amount_gbp) filter (where not is_return), 0) as spent_gbp
    from affected
    group by buyer_id, available_at

),

so_far as (

    select
        buyer_id,
        available_at,
        returns > 0 as has_return,
        cast(sum(returns) over so_far as bigint) as return_count,
        sum(returned_gbp) over so_far as returned_gbp,
        sum(returned_gbp) over lately as returned_90d_gbp,
        sum(spent_gbp) over so_far as spent_gbp
    from per_instant
    window
        so_far as (partition by buyer_id order by available_at),
        lately as (
            partition by buyer_id
            order by available_at range between interval '90 days' preceding and current row
        )

),

final as (

    select
        buyer_id,
        return_count,
        returned_gbp,
        returned_90d_gbp,
        returned_gbp / nullif(spent_gbp, 0) as return_share,
        available_at as event_time,
        available_at,
        {{ built_at() }} as built_at
    from so_far
    where has_return

)

select * from final
