{{ config(unique_key='agent_id') }}

{{ matured_cancellation_history('agent') }}
