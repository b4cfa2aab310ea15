{{ config(unique_key='segment_id') }}

{{ matured_cancellation_history('segment') }}
