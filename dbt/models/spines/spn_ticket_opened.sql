{{ config(unique_key='ticket_id') }}

with

updates as (

    select * from {{ ref('stg_incident__update') }}

),

affected as (

    select *
    from updates
    {%- if is_incremental() %}
    where ticket_id in (select fresh.ticket_id from updates as fresh where fresh.built_at > {{ last_built() }})
    {%- endif %}

),

first_update as (

    select *
    from affected
    qualify row_number() over (partition by ticket_id order by available_at, update_count) = 1

),

final as (

    select
        ticket_id,
        caller_id,
        group_id,
        available_at as prediction_time,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from first_update

)

select * from final
