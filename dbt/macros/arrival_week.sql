{#- A hotel's week of arrival, by ISO: 'City Hotel 2016-W09'. -#}
{% macro arrival_week(hotel, arrival_date) -%}
    {{ hotel }} || strftime({{ arrival_date }}, ' %G-W%V')
{%- endmacro %}
