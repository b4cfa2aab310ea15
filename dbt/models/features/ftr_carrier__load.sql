{{ config(unique_key=['carrier_id', 'event_time']) }}

{{ landed_load('carrier') }}
