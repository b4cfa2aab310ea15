"""What the sources deliver becomes features, and later the truth. First `releasing` puts in force what is acceptable of
the checkout (`project`: the dbt project as its files describe it, and whether a spec fits it; `columns`: what they say
of each column, which `column_lineage` follows through the SQL, and `select_list`: which columns that gives;
`dbt_files`: their shape; `names`: what a feature may be called). The features stage: `datasets` (`cuts`, `simulator`) →
`fetch` (what is new at the `places` that a contract names becomes files) → `ingest` (`contracts`: what was agreed with
a source; `schedules`: when it comes; `landing`: the files that are due) → `transform` (with `dbt_plugin`; `rebuilding`:
what has to be made anew; `changed_columns`: what cannot be) → `checks` → `settling` (which table is good, by `graph`:
which stands on which) → `publishing`, all run by `features`. What a night delivered: `deliveries` (when each was here)
→ `latency` (how long rows took) → `embargo` (what the nights say together); `column_profile` → `outage` (what fell
silent) → `data_incidents`; `observation` is all of that for one night of one source, and `source_figures` what its page
shows of it. What is read of it: `popular`
(what a model that ranks shows with its safe default), `frame` (features as they were known at each prediction), `truth`
(predictions joined with labels, when they have come).
"""
