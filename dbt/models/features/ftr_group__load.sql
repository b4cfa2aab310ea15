{{ config(unique_key='group_id') }}

with

updates as (

    select * from {{ ref('stg_incident__update') }}

),

{%- if is_incremental() %}
fresh as (

    select distinct touched.group_id
    from updates as touched
    where
        touched.group_id is not null
        and touched.ticket_id in (
            select written.ticket_id from updates as written where written.built_at > {{ last_built() }}
        )

),

{%- endif %}

affected as (

    select *
    from updates
    {%- if is_incremental() %}
    where
        ticket_id in (
            select member.ticket_id
            from updates as member
            where member.group_id in (select fresh.group_id from fresh)
        )
    {%- endif %}

),

-- the group that has the ticket on its desk after each update: none once it is resolved or closed
held as (

    select
        ticket_id,
        available_at,
        case when state in ('Resolved', 'Closed') then null else group_id end as holder,
        group_id,
        row_number() over ticket_order as place
    from affected
    window ticket_order as (partition by ticket_id order by available_at, update_count)

),

moves as (

    select
        *,
        lag(holder) over (partition by ticket_id order by place) as last_holder
    from held

),

changes as (

    select
        holder as group_id,
        available_at,
        1 as backlog,
        cast(place = 1 as integer) as arrivals,
        0 as departures
    from moves
    where holder is not null and holder is distinct from last_holder

    union all

    select
        last_holder as group_id,
        available_at,
        -1 as backlog,
        0 as arrivals,
        1 as departures
    from moves
    where last_holder is not null and holder is distinct from last_holder

),

per_instant as (

    select
        group_id,
        available_at,
        sum(backlog) as backlog,
        sum(arrivals) as arrivals,
        sum(departures) as departures
    from changes
    {%- if is_incremental() %}
    where group_id in (select fresh.group_id from fresh)
    {%- endif %}
    group by group_id, available_at

),

final as (

    select
        group_id,
        cast(sum(backlog) over so_far as bigint) as group_open_backlog,
        cast(sum(arrivals) over last_day as bigint) as group_arrivals_24h,
        cast(sum(arrivals) over last_week as bigint) as group_arrivals_7d,
        cast(sum(departures) over last_week as bigint) as group_departures_7d,
        available_at as event_time,
        available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        so_far as (partition by group_id order by available_at),
        last_day as (
            partition by group_id
            order by available_at range between interval '24 hours' preceding and current row
        ),
        last_week as (
            partition by group_id
            order by available_at range between interval '7 days' preceding and current row
        )

)

select * from final
