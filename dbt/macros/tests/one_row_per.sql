{#- The grain: no two rows share these columns. -#}
{% test one_row_per(model, columns) -%}
select
    {{ _quoted(columns) }},
    count(*) as copies
from {{ model }}
group by {{ _quoted(columns) }}
having count(*) > 1
{%- endtest %}
