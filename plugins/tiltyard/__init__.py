"""Tiltyard, in the order in which a night flows through it.

Ground: `errors`, `clock` (the rules of time), `settings`, `spec` (a model's promise), `postgres`, `lake`,
`ledger` (who decided what), `rails` (the three opened together).

Stages, one Airflow DAG each: `features` (`datasets`, `cuts`, `simulator` → `ingest` → `transform` → `checks`,
`leakage`), `training` (`frame` → `replay` → `encoding` → `profile` → `registry`), `shadow` (`scorer` → `scoring` →
`truth` → `evaluation`, `estimate`, `arrival`), `promotion` (`pairs` → `sequential` → `gate` → `evidence_page`),
`drift` (`detector` → `change`), and for all models together `grants` (`lineage` → `governor`), with `fallback`
deciding which tier answers, and `fallback_audit` (`explanation`) asking a person about a default that lasts; `popular`
is what a model that ranks shows then.

The past, then and now: `replay` (`history`, what the lake remembers of who wrote what → `comparison` → `replay_page`).

Leakage without write times: `evidence` (`reading` → `case` → `intervals` → `outcome_time`, `life`, `association`).

Anybody's table, without the rails: `audit` (`tabular` → `leakage`, `evidence` → `page`).

What a night delivered: `latency` (how late), `outage` (what fell silent), `arrival` (`runoff`: when the truth comes,
and whether it still does).

What was answered online: `spool` (on the way) → `request_log` (in the lake) → `arm` (how it turned out), `skew` (of its
features).

Past nights: `hindcast` (the loop over them), `backtest` (`policy` → `past` → `outcome`: the same nights under several
policies), both with a `worker` or two beside them.

Online: `serving` answers (`api`, `access`, `incoming`, `repeated` → `servable`, what is in service → `online`, the
store of features, which `streams` keep fresh → `race`: the light twin (`additive`), and a `lane` and a `breaker` per
version → `spool`), with `metrics`, `shadowing` (challengers score what was answered) and `contribution` (what moved a
score) beside the path. `request_log` brings the answers to the lake, where `arm` and `skew` say how they were.

Edges: `status`, `describe` and `plots` (what a person sees), `orchestration` (Airflow), `services` (what `make up`
starts), `cli`.

Pure, deciding and touching nothing: `spec clock evaluation estimate runoff sequential gate pairs fallback breaker
profile detector change lineage governor outcome explanation`, and `evidence` with its parts.
"""
