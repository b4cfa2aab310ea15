{{ config(unique_key='ticket_id') }}

with

updates as (

    select * from {{ ref('stg_incident__update') }}

),

opened as (

    select
        *,
        prediction_time + interval '{{ var("sla_breach_horizon_days") }} days' as deadline
    from {{ ref('spn_ticket_opened') }}

),

landed as (

    select {{ landed_until('incident') }} as landed_until

),

affected as (

    select opened.*
    from opened
    {%- if is_incremental() %}
    where
        opened.ticket_id in (select fresh.ticket_id from updates as fresh where fresh.built_at > {{ last_built() }})
        or (
            opened.deadline <= (select landed.landed_until from landed)
            and opened.ticket_id not in (select this.ticket_id from {{ this }} as this)
        )
    {%- endif %}

),

-- a ticket that is reopened keeps the outcome of its first closing: that is when its SLA was settled
first_close as (

    select *
    from updates
    where
        state = 'Closed'
        and ticket_id in (select affected.ticket_id from affected)
    qualify row_number() over (partition by ticket_id order by available_at, update_count) = 1

),

closed_in_time as (

    select
        affected.ticket_id,
        affected.prediction_time,
        not first_close.made_sla as label,
        first_close.event_time,
        first_close.available_at
    from affected
    inner join first_close
        on
            affected.ticket_id = first_close.ticket_id
            and affected.deadline >= first_close.available_at

),

-- known only once everything up to the deadline has landed
not_closed_in_time as (

    select
        affected.ticket_id,
        affected.prediction_time,
        true as label,
        affected.deadline as event_time,
        affected.deadline as available_at
    from affected
    where
        affected.deadline <= (select landed.landed_until from landed)
        and affected.ticket_id not in (select closed_in_time.ticket_id from closed_in_time)

),

unioned as (

    select * from closed_in_time
    union all
    select * from not_closed_in_time

),

final as (

    select
        *,
        {{ built_at() }} as built_at
    from unioned

)

select * from final
