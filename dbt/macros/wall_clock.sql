{#- `minutes` after midnight of `day`, by the clocks of `zone`, as an instant. An hour that the clocks skip is the
next one, one that they show twice is the first. -#}
{% macro wall_clock(day, minutes, zone) -%}
    {{ return(adapter.dispatch('wall_clock', 'tiltyard')(day, minutes, zone)) }}
{%- endmacro %}

{% macro duckdb__wall_clock(day, minutes, zone) -%}
    timezone('{{ zone }}', cast({{ day }} as timestamp) + to_minutes(cast({{ minutes }} as bigint)))
{%- endmacro %}

{% macro default__wall_clock(day, minutes, zone) -%}
    (cast({{ day }} as timestamp) + {{ minutes }} * interval '1 minute') at time zone '{{ zone }}'
{%- endmacro %}
