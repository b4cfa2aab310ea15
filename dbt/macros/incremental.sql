{#- Incremental builds by affected entity.

Every row carries `built_at`, the start of the build that wrote it. A model that is brought up to date recomputes
the entities whose inputs were written after its own newest row, from all of their inputs. So late and out-of-order
arrivals are right by construction, and an incremental build equals a full refresh. Of what it computed it writes what
is new (`written`): to replace rows by the same ones would cost a file of the lake per table and night that no
maintenance may merge, since a row that was deleted stays for the snapshots that read it. -#}

{#- dbt's delete+insert, for a model whose rows carry `built_at`; any other is written as dbt would. -#}
{% macro duckdb__get_delete_insert_merge_sql(target, source, unique_key, dest_columns, incremental_predicates) -%}
    {%- set names = dest_columns | map(attribute='name') | list -%}
    {%- if unique_key and 'built_at' in names and not incremental_predicates -%}
        {%- set keys = [unique_key] if unique_key is string else unique_key -%}
{{ written(target, source, source.identifier, names, keys, stamp='built_at') }}
    {%- else -%}
{{ dbt_duckdb.duckdb__get_delete_insert_merge_sql(target, source, unique_key, dest_columns, incremental_predicates) }}
    {%- endif -%}
{%- endmacro %}

{#- The stamp that the stage gives its build, by the clock of the database: workers' own may differ by minutes, and an
input that is stamped before its reader's newest row would never be read. dbt's own clock where a person runs dbt. -#}
{% macro built_at() -%}
    coalesce(cast(getvariable('built_at') as timestamptz), cast('{{ run_started_at }}' as timestamptz))
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
