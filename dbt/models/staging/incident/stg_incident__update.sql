{{ config(unique_key='ticket_id') }}

with

source as (

    select * from {{ source('incident', 'incident_update') }}

),

affected as (

    select source.*
    from source
    {%- if is_incremental() %}
    where
        source.number in (
            select fresh.number
            from source as fresh
            where fresh.ingested_at > {{ last_ingested() }}
        )
    {%- endif %}

),

typed as (

    select
        number as ticket_id,
        cast(sys_mod_count as integer) as update_count,

        -- '-100' is a state the source does not name (5 rows): the update counts, its state is unknown
        nullif(incident_state, '-100') as state,
        cast(active as boolean) as is_active,
        cast(reassignment_count as integer) as reassignment_count,
        cast(reopen_count as integer) as reopen_count,
        cast(made_sla as boolean) as made_sla,

        caller_id,
        opened_by,
        sys_created_by as created_by,
        sys_updated_by as updated_by,
        assignment_group as group_id,
        assigned_to,
        resolved_by,

        contact_type,
        location,
        category,
        subcategory,
        u_symptom as symptom,
        cmdb_ci as configuration_item,
        impact,
        urgency,
        priority,
        cast(knowledge as boolean) as is_knowledge,
        cast(u_priority_confirmation as boolean) as is_priority_confirmed,
        notify,
        problem_id,
        rfc as change_id,
        vendor,
        caused_by,
        closed_code,

        {{ instant_of('opened_at') }} as opened_at,
        {{ instant_of('sys_created_at') }} as created_at,
        {{ instant_of('resolved_at') }} as resolved_at,
        {{ instant_of('closed_at') }} as closed_at,

        event_time,
        available_at,
        ingested_at,
        source_file,
        row_number
    from affected

),

-- the export fills resolved and closed columns in on every row of a ticket, even its first; made_sla reads true
-- until the ticket is closed. What had not come to pass when a row was written is NULL in it.
known as (

    select
        * replace (
            case when state = 'Closed' then made_sla end as made_sla,
            {{ known_by('resolved_at', 'resolved_by') }} as resolved_by,
            {{ known_by('closed_at', 'closed_code') }} as closed_code,
            {{ known_by('opened_at') }} as opened_at,
            {{ known_by('created_at') }} as created_at,
            {{ known_by('resolved_at') }} as resolved_at,
            {{ known_by('closed_at') }} as closed_at
        )
    from typed

),

-- five pairs of rows share ticket and update count: the one that was written first is the update
numbered as (

    select
        *,
        row_number() over (
            partition by ticket_id, update_count
            order by available_at, event_time, source_file, row_number
        ) as copy
    from known
    where available_at is not null

),

final as (

    select
        * exclude (copy, source_file, row_number),
        {{ built_at() }} as built_at
    from numbered
    where copy = 1

)

select * from final
