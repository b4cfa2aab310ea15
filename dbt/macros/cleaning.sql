{#- A source's local instant, day first, as an instant in UTC. -#}
{% macro instant_of(column) -%}
    {{ return(adapter.dispatch('instant_of', 'tiltyard')(column)) }}
{%- endmacro %}

{% macro duckdb__instant_of(column) -%}
    cast(strptime({{ column }}, '%d/%m/%Y %H:%M') as timestamptz)
{%- endmacro %}

{% macro default__instant_of(column) -%}
    to_timestamp({{ column }}, 'DD/MM/YYYY HH24:MI')
{%- endmacro %}

{#- `value`, where the instant that made it true had come when the row was written; NULL where the source filled it
in afterwards. -#}
{% macro known_by(instant, value=none) -%}
    case when {{ instant }} <= available_at then {{ value or instant }} end
{%- endmacro %}

{#- Whether a code begins with five digits, as the numbers of items do. -#}
{% macro is_numbered(column) -%}
    {{ return(adapter.dispatch('is_numbered', 'tiltyard')(column)) }}
{%- endmacro %}

{% macro duckdb__is_numbered(column) -%}
    regexp_matches({{ column }}, '^[0-9]{5}')
{%- endmacro %}

{% macro default__is_numbered(column) -%}
    {{ column }} ~ '^[0-9]{5}'
{%- endmacro %}
