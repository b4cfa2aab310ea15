{#- `minutes` after midnight of `day`, by the clocks of `zone`, as an instant. An hour that the clocks skip is the
next one, one that they show twice is the first: the offset of the day before tells, where it still holds (databases
take the second one by themselves). -#}
{% macro wall_clock(day, minutes, zone) -%}
    {{ return(adapter.dispatch('wall_clock', 'tiltyard')(day, minutes, zone)) }}
{%- endmacro %}

{% macro duckdb__wall_clock(day, minutes, zone) -%}
    {{ first_instant("(cast(" ~ day ~ " as timestamp) + to_minutes(cast(" ~ minutes ~ " as bigint)))", zone) }}
{%- endmacro %}

{% macro default__wall_clock(day, minutes, zone) -%}
    {{ first_instant("(cast(" ~ day ~ " as timestamp) + " ~ minutes ~ " * interval '1 minute')", zone) }}
{%- endmacro %}

{#- The first instant at which the clocks of `zone` show a timestamp: what ingest reads times without a zone as. -#}
{% macro first_instant(shown, zone) -%}
    {%- set there = "timezone('" ~ zone ~ "', " ~ shown ~ ")" -%}
    {%- set before = "(timezone('" ~ zone ~ "', " ~ shown ~ " - interval '1 day') + interval '24 hours')" -%}
    case
        when timezone('{{ zone }}', {{ before }}) = {{ shown }} then least({{ before }}, {{ there }})
        else {{ there }}
    end
{%- endmacro %}
