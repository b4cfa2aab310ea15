{#- Past breaches of a caller or a group, from matured labels only; one row per instant at which a cohort of theirs
matures. `entity` is caller or group. -#}
{% macro matured_breach_history(entity) -%}
with

spine as (

    select * from {{ ref('spn_ticket_opened') }}

),

labels as (

    select * from {{ ref('lbl_sla_breach') }}

),

updates as (

    select * from {{ ref('stg_incident__update') }}

),

landed as (

    select {{ landed_until('incident') }} as landed_until

),

-- A label counts from the moment its whole cohort has matured, not from when it became known: of the labels that
-- are known early 6 % are breaches, of all 38 %, so that a rate over early ones would be a rate of fast closers.
matured as (

    select
        spine.{{ entity }}_id,
        labels.label,
        labels.prediction_time + interval '{{ var("sla_breach_horizon_days") }} days' as matured_at,
        labels.built_at
    from labels
    inner join spine on labels.ticket_id = spine.ticket_id
    where
        spine.{{ entity }}_id is not null
        and labels.prediction_time + interval '{{ var("sla_breach_horizon_days") }} days'
        <= (select landed.landed_until from landed)

),

{%- if is_incremental() %}
-- an entity is touched by labels written since the last build, by cohorts that have matured since, and by every
-- update of those tickets (a late first update may move a ticket from one entity to another)
fresh_ticket as (

    select ticket_id
    from labels
    where
        built_at > {{ last_built() }}
        or prediction_time + interval '{{ var("sla_breach_horizon_days") }} days'
        > (select max(this.event_time) from {{ this }} as this)

),

fresh as (

    select distinct updates.{{ entity }}_id
    from updates
    where
        updates.{{ entity }}_id is not null
        and updates.ticket_id in (select fresh_ticket.ticket_id from fresh_ticket)

),

{%- endif %}

affected as (

    select *
    from matured
    {%- if is_incremental() %}
    where {{ entity }}_id in (select fresh.{{ entity }}_id from fresh)
    {%- endif %}

),

per_instant as (

    select
        {{ entity }}_id,
        matured_at,
        count(*) as matured,
        count(*) filter (where label) as breached
    from affected
    group by {{ entity }}_id, matured_at

),

final as (

    select
        {{ entity }}_id,
        cast(sum(matured) over so_far as bigint) as {{ entity }}_matured_count,
        cast(sum(breached) over so_far as double) / sum(matured) over so_far as {{ entity }}_breach_rate,
        cast(sum(breached) over lately as double) / sum(matured) over lately as {{ entity }}_breach_rate_14d,
        matured_at as event_time,
        matured_at as available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        so_far as (partition by {{ entity }}_id order by matured_at),
        lately as (
            partition by {{ entity }}_id
            order by matured_at range between interval '14 days' preceding and current row
        )

)

select * from final
{%- endmacro %}
