{#- Past outcomes of an entity that many members share, from matured labels only; one row per instant at which a
cohort of theirs matures.

    entity        whose history: the column is <entity>_id in spine and members
    key           a member's key in spine, members and labels
    spine         the spine of the members' predictions
    labels        their label table
    members       the staging table that tells to whom a member belongs
    source_name   the source, for what has landed
    horizon_days  of the label
    outcome       what a positive label, or the number that it is, is called in the columns: <entity>_<outcome>_rate;
                  of a number it is the mean
    lately_days   the window of <entity>_<outcome>_rate_<lately_days>d
    classes       of a label of several classes: what each is called in the columns, <entity>_<outcome>_<name>_rate, and
                  its text; none: of a yes or no, or a number
    counts        which rows <entity>_matured_count counts: "ever", or "lately" those of the window, named with its days;
                  a count of all that ever were goes on with the days, so that every later night looks like drift
    matures       SQL of when the label of a row of the spine has matured, from the spine's columns; none: when
                  horizon_days have passed since its prediction -#}
{% macro matured_label_history(
    entity, key, spine, labels, members, source_name, horizon_days, outcome, lately_days, classes=none, counts="ever", matures=none
) -%}
{%- set names = [outcome] -%}
{%- set values = ["cast(label as double)"] -%}
{%- if classes -%}
{%- set names = [] -%}
{%- set values = [] -%}
{%- for name, text in classes.items() -%}
{%- do names.append(outcome ~ "_" ~ name) -%}
{%- do values.append("case when label = '" ~ (text | replace("'", "''")) ~ "' then 1.0 else 0.0 end") -%}
{%- endfor -%}
{%- endif -%}
{%- set matures = matures or "prediction_time + interval '" ~ horizon_days ~ " days'" -%}
with

spine as (

    select
        *,
        {{ matures }} as matured_at
    from {{ ref(spine) }}

),

labels as (

    select
        labels.*,
        spine.matured_at
    from {{ ref(labels) }} as labels
    inner join spine on labels.{{ key }} = spine.{{ key }}

),

members as (

    select * from {{ ref(members) }}

),

landed as (

    select {{ landed_until(source_name) }} as landed_until

),

-- A label counts from the moment its whole cohort has matured, not from when it became known: labels that are known
-- early are no sample (of tickets 6 % are breaches, of all 38 %; of bookings 46 % are cancelled, of all 21 %).
matured as (

    select
        spine.{{ entity }}_id,
        labels.label,
        labels.matured_at,
        labels.built_at
    from labels
    inner join spine on labels.{{ key }} = spine.{{ key }}
    where
        spine.{{ entity }}_id is not null
        and labels.matured_at <= (select landed.landed_until from landed)

),

{%- if is_incremental() %}
-- an entity is touched by labels written since the last build, by cohorts that have matured since, and by every
-- row of their members (a late first update may move a ticket from one group to another)
fresh_member as (

    select {{ key }}
    from labels
    where
        built_at > {{ last_built() }}
        or matured_at > (select max(this.event_time) from {{ this }} as this)

),

fresh as (

    select distinct members.{{ entity }}_id
    from members
    where
        members.{{ entity }}_id is not null
        and members.{{ key }} in (select fresh_member.{{ key }} from fresh_member)

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
        count(*) as matured
        {%- for value in values %},
        sum({{ value }}) as positive_{{ loop.index }}
        {%- endfor %}
    from affected
    group by {{ entity }}_id, matured_at

),

final as (

    select
        {{ entity }}_id,
        {% if counts == "lately" -%}
        cast(sum(matured) over lately as bigint) as {{ entity }}_matured_count_{{ lately_days }}d,
        {%- else -%}
        cast(sum(matured) over so_far as bigint) as {{ entity }}_matured_count,
        {%- endif %}
        {%- for name in names %}
        sum(positive_{{ loop.index }}) over so_far / sum(matured) over so_far as {{ entity }}_{{ name }}_rate,
        sum(positive_{{ loop.index }}) over lately
        / sum(matured) over lately as {{ entity }}_{{ name }}_rate_{{ lately_days }}d,
        {%- endfor %}
        matured_at as event_time,
        matured_at as available_at,
        {{ built_at() }} as built_at
    from per_instant
    window
        so_far as (partition by {{ entity }}_id order by matured_at),
        lately as (
            partition by {{ entity }}_id
            order by matured_at range between interval '{{ lately_days }} days' preceding and current row
        )

)

select * from final
{%- endmacro %}

{#- Past breaches of a caller or a group. -#}
{% macro matured_breach_history(entity) -%}
    {{ matured_label_history(
        entity, key='ticket_id', spine='spn_ticket_opened', labels='lbl_sla_breach', members='stg_incident__update',
        source_name='incident', horizon_days=var('sla_breach_horizon_days'), outcome='breach', lately_days=14
    ) }}
{%- endmacro %}

{#- Past cancellations of an agent or a hotel's market segment. -#}
{% macro matured_cancellation_history(entity) -%}
    {{ matured_label_history(
        entity, key='booking_id', spine='spn_booking_made', labels='lbl_hotel_cancellation', members='spn_booking_made',
        source_name='hotels', horizon_days=var('hotel_cancellation_horizon_days'), outcome='cancel', lately_days=28
    ) }}
{%- endmacro %}
