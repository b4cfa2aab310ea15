"""Tiltyard, in the order in which a night flows through it.

Ground: `errors`, `clock` (the rules of time), `settings`, `spec` (a model's promise), `postgres`, `lake`,
`ledger` (who decided what), `rails` (the three opened together).

Stages, one Airflow DAG each: `features` (`datasets`, `cuts`, `simulator` → `ingest` → `transform` → `checks`,
`leakage`), `training` (`frame` → `replay` → `encoding` → `registry`), `shadow` (`scorer` → `scoring` → `truth` →
`evaluation`), `promotion` (`gate`), `drift`, `grants` (`lineage` → `governor`,
all models at once), with `fallback` deciding which tier answers.

The past, then and now: `replay` (`history`, what the lake remembers of who wrote what → `comparison` → `replay_page`).

Leakage without write times: `evidence` (`reading` → `case` → `intervals` → `outcome_time`, `life`, `association`).

Anybody's table, without the rails: `audit` (`tabular` → `leakage`, `evidence` → `page`).

What a night delivered: `latency` (how late), `outage` (what fell silent).

Edges: `hindcast` (the loop over past nights), `status` and `plots` (what a person sees), `orchestration` (Airflow),
`services` (what `make up` starts), `cli`.

Pure, deciding and touching nothing: `spec clock evaluation gate fallback lineage governor`, and `evidence`
with its parts.
"""
