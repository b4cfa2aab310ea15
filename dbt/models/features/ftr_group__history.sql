{{ config(unique_key='group_id') }}

{{ matured_breach_history('group') }}
