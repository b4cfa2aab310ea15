{{ config(unique_key='customer_id') }}

with

reviews as (

    select * from {{ ref('spn_customer_reviewed') }}

),

logins as (

    select * from {{ ref('stg_subscription__login') }}

),

{%- if is_incremental() %}
fresh as (

    select customer_id
    from reviews
    where built_at > {{ last_built() }}

    union

    select customer_id
    from logins
    where built_at > {{ last_built() }}

),

{%- endif %}

affected as (

    select
        customer_id,
        prediction_time as reviewed_at
    from reviews
    {%- if is_incremental() %}
    where customer_id in (select fresh.customer_id from fresh)
    {%- endif %}

),

-- only log-ins that had happened and were written down by then: phones that were offline deliver theirs days late
seen as (

    select
        affected.customer_id,
        affected.reviewed_at,
        logins.event_time as logged_in_at,
        logins.device
    from affected
    left join logins
        on
            affected.customer_id = logins.customer_id
            and affected.reviewed_at >= logins.event_time
            and affected.reviewed_at >= logins.available_at
            and affected.reviewed_at < logins.event_time + interval '28 days'

),

final as (

    select
        customer_id,
        count(*) filter (where logged_in_at > reviewed_at - interval '7 days') as logins_7d,
        count(logged_in_at) as logins_28d,
        count(*) filter (where device = 'phone') as phone_logins_28d,
        cast({{ dbt.datediff('max(logged_in_at)', 'reviewed_at', 'hour') }} as bigint) as last_login_age_hours,
        reviewed_at as event_time,
        reviewed_at as available_at,
        {{ built_at() }} as built_at
    from seen
    group by customer_id, reviewed_at

)

select * from final
