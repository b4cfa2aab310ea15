{{ config(unique_key='caller_id') }}

{{ matured_breach_history('caller') }}
