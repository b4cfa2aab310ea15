"""What the sources deliver becomes features, and later the truth. The features stage: `datasets` (`cuts`, `simulator`)
→ `ingest` → `transform` (with `dbt_plugin`) → `checks`, all run and published by `features`. What a night delivered:
`latency` (how late), `outage` (what fell silent). What is read of it: `popular` (what a model that ranks shows with its
safe default), `frame` (features as they were known at each prediction), `truth` (predictions joined with labels, when
they have come).
"""
