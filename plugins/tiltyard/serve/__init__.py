"""Online: `web` (the routes; `api` describes them, `access` says who may ask) → `serving` answers (`incoming`,
`repeated` → `servable`, what is in service → `race`: the light twin (`additive`), and a `lane` and a `breaker` per
version, watched by `deadlines` with a short `timeslice`; `fallback` decides which tier answers), with `metrics`,
`shadowing` (challengers score what was answered) and `contribution` (what moved a score) beside the path. What was
answered goes into the `spool`.
"""
