"""Online: `web` (the routes; `api` describes them, `access` says who may ask) → `serving` answers (`incoming`,
`repeated` → `servable`, what is in service → `race`: the light twin (`additive`), and a `lane` and a `breaker` per
version, watched by `deadlines` with a short `timeslice`; `fallback` decides which tier answers), with `metrics`,
`shadowing` (challengers score what was answered) and `contribution` (what moved a score) beside the path; `streams`
keep the store of features fresh. What was answered: `spool` (on the way) → `request_log` (in the lake) → `arm` (how it
turned out), `skew` (of its features). `fallback_audit` (`explanation`) asks a person about a default that lasts.
"""
