{#- Nothing in a row was known before the row was: none of these instants is later than `instant`. -#}
{% test nothing_later_than(model, columns, instant) -%}
select *
from {{ model }}
where
    {%- for column in columns %}
    {{ 'or ' if not loop.first }}{{ _quoted([column]) }} > {{ instant }}
    {%- endfor %}
{%- endtest %}
