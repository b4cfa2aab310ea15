{#- Incremental builds by affected entity.

Every row carries `built_at`, the start of the build that wrote it. A model that is brought up to date recomputes
the entities whose inputs were written after its own newest row, and replaces all their rows (delete+insert). So
late and out-of-order arrivals are right by construction: an entity's rows are always computed from all of its
inputs, and an incremental build equals a full refresh. -#}

{% macro built_at() -%}
    cast('{{ run_started_at }}' as timestamptz)
{%- endmacro %}

{#- The newest build among this model's rows: inputs written later are new to it. -#}
{% macro last_built() -%}
    (select coalesce(max(built_at), cast('1970-01-01 00:00:00+00' as timestamptz)) from {{ this }})
{%- endmacro %}

{#- The newest load among this staging model's rows: raw rows loaded later are new to it. -#}
{% macro last_ingested() -%}
    (select coalesce(max(ingested_at), cast('1970-01-01 00:00:00+00' as timestamptz)) from {{ this }})
{%- endmacro %}

{#- The instant up to which everything of a source has landed: what had not happened by then is known not to have. -#}
{% macro landed_until(source_name) -%}
    (select max(available_at) from {{ source('ops', 'landed_file') }} where source = '{{ source_name }}')
{%- endmacro %}

{#- The end of the first day that a source delivered: before it, nothing could have been predicted. A delivery's
name begins with its day. -#}
{% macro landed_from(source_name) -%}
    (
        select cast(min(left(file, 10)) as timestamptz) + interval '1 day'
        from {{ source('ops', 'landed_file') }}
        where source = '{{ source_name }}'
    )
{%- endmacro %}
