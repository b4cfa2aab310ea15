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
        priority,
        impact,
        urgency,
        contact_type,
        category,
        subcategory,
        symptom,
        location,
        opened_by,
        state as intake_state,
        configuration_item is not null as has_configuration_item,
        assigned_to is not null as has_assignee,
        group_id is not null as has_group,
        is_knowledge,
        is_priority_confirmed,
        cast(extract(hour from available_at) as integer) as opened_hour,
        cast(extract(isodow from available_at) as integer) as opened_weekday,
        cast({{ dbt.datediff('opened_at', 'available_at', 'minute') }} as integer) as opened_to_written_minutes,
        event_time,
        available_at,
        {{ built_at() }} as built_at
    from first_update

)

select * from final
