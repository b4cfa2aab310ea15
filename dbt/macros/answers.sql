{#- A feature view's answers (see point_in_time.sql), kept beside it in <view>__answers, so that a join need not prune
the view again. dbt_project.yml runs this after every feature view, inside the view's own transaction: a snapshot of
the lake holds both or neither. A build that writes rows by a key that names the entity leaves a row with its own
`built_at` on every entity that it changed: the answers of those are computed anew. Any other build writes them all. -#}
{% macro keep_answers() -%}
    {%- set key = this.identifier[4:].split('__')[0] ~ '_id' -%}
    {%- set columns = adapter.get_columns_in_relation(this) if execute else [] -%}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set reserved = [key, 'prediction_time', 'event_time', 'available_at', 'ingested_at', 'built_at'] -%}
    {%- set features = names | reject('in', reserved) | list -%}
    {%- set kept = kept_answers_of(this) -%}
    {%- set unique_key = config.get('unique_key') or [] -%}
    {%- if key in names and 'event_time' in names and 'available_at' in names -%}
        {%- if
            config.get('materialized') == 'incremental'
            and not should_full_refresh()
            and key in ([unique_key] if unique_key is string else unique_key)
            and 'built_at' in names
            and this.identifier in run_query(answers_hold(this.database, this.schema)).columns[0].values()
            and _same_columns(columns, features, adapter.get_columns_in_relation(kept))
        -%}
{{ answers_renewed(this, kept, key, features, built_at()) }}
        {%- else -%}
create or replace table {{ kept }} as
{{ answers(this, key, features) }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}

{#- The table that keeps a view's answers. -#}
{% macro kept_answers_of(view) -%}
    {{ return(view.incorporate(path={'identifier': view.identifier ~ '__answers'})) }}
{%- endmacro %}

{#- Bring kept answers up to date: those of every entity with a row that was built at `built`, from all its rows. -#}
{% macro answers_renewed(view, kept, key, columns, built) -%}
{%- set name = (view | string).split('.')[-1] | replace('"', '') -%}
{%- set renewed = name ~ '__renewed' -%}
{%- set touched = '(select ' ~ adapter.quote(key) ~ ' from ' ~ view ~ ' where built_at = ' ~ built ~ ')' -%}
create or replace temp table {{ renewed }} as
{{ answers(view, key, columns, touched) }};

{{ written(kept, renewed, name ~ '__answers', [key, 'event_time', 'available_at'] + columns + ['known_at'], [key]) }}
{%- endmacro %}

{#- The views of a schema whose kept answers hold at a snapshot of the lake (`version`; none: the newest): nobody has
written to the view since its answers were written, by the lake's own record. What the record no longer says, because
snapshots were expired, does not hold. Compaction moves rows and changes none. -#}
{% macro answers_hold(database, schema, version=none) -%}
{%- set version = 9223372036854775807 if version is none else version -%}
{%- set record = '__ducklake_metadata_' ~ database -%}
with

alive as (

    select
        tables.table_name,
        tables.table_id,
        tables.begin_snapshot as created
    from {{ record }}.ducklake_table as tables
    inner join {{ record }}.ducklake_schema as schemas on tables.schema_id = schemas.schema_id
    where
        schemas.schema_name = '{{ schema }}'
        and schemas.end_snapshot is null
        and tables.begin_snapshot <= {{ version }}
        and coalesce(tables.end_snapshot > {{ version }}, true)

),

change as (

    select
        snapshot_id,
        unnest(string_split(changes_made, ',')) as what
    from {{ record }}.ducklake_snapshot_changes
    where snapshot_id <= {{ version }}

),

written as (

    select
        cast(split_part(what, ':', 2) as bigint) as table_id,
        max(snapshot_id) as last_snapshot
    from change
    where regexp_full_match(
        what, '(inserted_into_table|deleted_from_table|inlined_insert|inlined_delete|altered_table):[0-9]+'
    )
    group by 1

),

last_written as (

    select
        alive.table_name,
        greatest(alive.created, written.last_snapshot) as last_snapshot
    from alive
    left join written on alive.table_id = written.table_id

),

final as (

    select feature_view.table_name
    from last_written as feature_view
    inner join last_written as kept on kept.table_name = feature_view.table_name || '__answers'
    where
        kept.last_snapshot >= feature_view.last_snapshot
        and kept.last_snapshot >= (select min(change.snapshot_id) from change)

)

select * from final
{%- endmacro %}

{% macro _same_columns(columns, features, kept_columns) -%}
    {%- set kinds = {} -%}
    {%- for column in columns -%}
        {%- do kinds.update({column.name: column.dtype}) -%}
    {%- endfor -%}
    {%- set kept_kinds = {} -%}
    {%- for column in kept_columns -%}
        {%- do kept_kinds.update({column.name: column.dtype}) -%}
    {%- endfor -%}
    {%- set changed = [] -%}
    {%- for name in features -%}
        {%- do changed.append(name) if kinds[name] != kept_kinds.get(name) -%}
    {%- endfor -%}
    {{ return(not changed and kept_columns | length == features | length + 4) }}
{%- endmacro %}
