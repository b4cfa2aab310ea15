"""Tiltyard, in the order in which a night flows through it. Each package names its modules in reading order.

Ground, here: `errors`, `clock` (the rules of time), `settings`, `spec` (a model's promise), `postgres`, `lake`,
`ledger` (who decided what), `rails` (the three opened together), `suites` (one suite judges one batch), and `cli`,
the command line over all of it.

- `prepare`: what the sources deliver becomes features, and later the truth.
- `train`: from published features to a registered challenger, past the millisecond test.
- `judge`: every night's scores, what they are worth, and which version may serve.
- `govern`: whether the world has moved, and the few trainings that all models together may have.
- `leak`: does anything tell what could not have been known yet? Here, and in anybody's table.
- `rewind`: past nights once more, as they were and under other policies.
- `online`: features for answers that cannot wait.
- `serve`: answers over HTTP.
- `answered`: what becomes of answers that were given.
- `pages`: what a person opens in a browser.
- `edge`: what a person sees, Airflow, and what `make up` starts.

Pure, deciding and touching nothing: `spec clock evaluation estimate runoff sequential gate pairs fallback breaker
profile detector change lineage governor outcome explanation`, and `evidence` with its parts.
"""

__version__ = "0.1.0"
"""The version, here and nowhere else: the package and `tiltyard --version` read it."""
