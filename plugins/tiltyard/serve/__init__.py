"""Answers over HTTP. In reading order:

`web` has the routes; `api` describes them, `access` says who may ask, `headers` reads what a request says of itself.
`serving` answers: `incoming` reads the rows and `repeated` finds a request that came before; `servable` is what is in
service; in a `race` the light twin (`additive`) is scored, each version asked on its `lane` unless its `breaker` is
open, under `deadlines` with a short `timeslice`; `fallback` decides which tier answers. The answer goes into the
`spool`. Beside the path stand `metrics`, `shadowing` (challengers score what was answered) and `contribution` (what
moved a score).
"""
