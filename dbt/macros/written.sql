{#- Make the rows of every entity in `source`, a table, those of `target`; `name` begins the names of temporary tables.

An entity that has lost a row is replaced: all its rows are deleted and inserted, so that each carries the build's stamp
and whoever reads the model sees that it changed. To any other its new rows are added, and one with the same rows as
before is left alone. Rows are compared without their stamp, of which a build has one, and as often as each occurs. -#}
{% macro written(target, source, name, names, keys, stamp=none) -%}
    {%- set content = names | reject('equalto', stamp) | list -%}
    {%- set entity = '(' ~ _quoted(keys) | trim ~ ')' -%}
    {%- set replaced = name ~ '__replaced' -%}
    {%- set added = name ~ '__added' -%}
create or replace temp table {{ replaced }} as
select distinct {{ _quoted(keys) }}
from (
    select {{ _quoted(content) }} from {{ target }}
    where {{ entity }} in (select {{ entity }} from {{ source }})
    except all
    select {{ _quoted(content) }} from {{ source }}
);

create or replace temp table {{ added }} as
select {{ _quoted(content) }} from {{ source }}
where coalesce({{ entity }} not in (select {{ entity }} from {{ replaced }}), true)
except all
select {{ _quoted(content) }} from {{ target }}
where {{ entity }} in (select {{ entity }} from {{ source }});

delete from {{ target }}
where {{ entity }} in (select {{ entity }} from {{ replaced }});

insert into {{ target }} ({{ _quoted(names) }})
select {{ _quoted(names) }} from {{ source }}
where {{ entity }} in (select {{ entity }} from {{ replaced }})
union all
select {{ _quoted(names) }}
from {{ added }}
{%- if stamp %}
cross join (select max({{ adapter.quote(stamp) }}) as {{ adapter.quote(stamp) }} from {{ source }})
{%- endif %}
{%- endmacro %}

{#- Names as the adapter quotes them; one that its writer has quoted already, as dbt asks for in a `unique_key`, is not
quoted again. -#}
{% macro _quoted(names) -%}
    {%- for name in names -%}
    {{ name if name[:1] == '"' else adapter.quote(name) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
