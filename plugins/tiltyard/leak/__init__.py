"""Does anything tell what could not have been known yet? What is held against a column is a `Suspicion` (`suspicion`).

With write times: `rules`, and `suite`, which grades their results every night. Without them: `evidence`, in the order
`arrays`, `instants`, `reading` → `case` → `intervals` → `outcome_time`, `life`, `entity_log` → `aggregates`,
`association`. Anybody's table, without the rails: `audit`, in the order `roles`, `engine` → `formats`, `times` →
`tabular` → `label`, `write_times`, `drawing` → `coverage` → `page`.
"""
