{{ config(unique_key=['airport_id', 'event_time']) }}

{{ landed_load('airport') }}
