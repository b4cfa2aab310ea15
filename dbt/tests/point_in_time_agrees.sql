{#- The two dispatches of the point-in-time join, and the fast one on kept answers, give the same rows on real tables (a
sample of the spine). -#}
{{ config(tags=['reference']) }}

{%- set arguments = {
    'spine': 'sample',
    'view': ref('ftr_group__load'),
    'key': 'group_id',
    'columns': ['group_open_backlog', 'group_arrivals_7d'],
    'spine_key': ['ticket_id', 'prediction_time'],
    'prefix': 'ftr_group__load',
    'max_age_s': 86400
} %}
{%- set answers = dict(arguments, view=kept_answers_of(ref('ftr_group__load')), pruned=true) %}

with

spine as (

    select * from {{ ref('spn_ticket_opened') }}

),

sample as (

    select
        ticket_id,
        group_id,
        prediction_time
    from spine
    order by ticket_id
    limit 500

),

fast as (

    {{ duckdb__point_in_time(**arguments) }}

),

kept as (

    {{ duckdb__point_in_time(**answers) }}

),

portable as (

    {{ default__point_in_time(**arguments) }}

),

final as (

    (
        select * from fast
        except all
        select * from portable
    )
    union all
    (
        select * from portable
        except all
        select * from fast
    )
    union all
    (
        select * from kept
        except all
        select * from portable
    )

)

select * from final
