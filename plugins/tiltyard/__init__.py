"""Tiltyard, in the order in which a night flows through it. Each package names its modules in reading order.

Ground, here: `redaction` (no text carries a secret), `errors`, `clock` (the rules of time), `files` (whole or not at
all), `child` (what a child process is given), `arguments` (what a caller from Python gives), `words` (of sentences),
`settings`, `yaml_files` (what people write, read strictly), `spec` (a model's promise), `portfolio_rules` (what holds
for all models together), `release` (which texts are in force), `stages`, `tables` (every `ops.*` table), `records`
(what the parts hand each other), `postgres`, `ledger_tables`, `reading` (one connection for a page), `fence` (of two
attempts the newest commits), `file_looks` (what is known of the lake's files), `outbox` (what people are told),
`accounts` (what nights have cost), `chronicle` (what pages look back at), `operating` and `operations` (what people do
to a model by hand), `succession` (who is champion on which night), `ledger` (who decided what), `roles` (who may do
what in the database), `lake`, `file_rows` and `casts` (what is read of files, and as what), `damage` (a file of the
lake that is not as it was written), `rails` (settings, lake and ledger opened together), `suites` (one suite judges one
batch), and `cli`, the command line over all of it.

- `prepare`: what the sources deliver becomes features, and later the truth.
- `estimators`: what may be trained as the heavy model, a family per file.
- `train`: from published features to a registered challenger, past the millisecond test.
- `scaffold`: from somebody's table to a source and a model, as text.
- `judge`: every night's scores, what they are worth, and which version may serve.
- `govern`: whether the world has moved, and the few trainings that all models together may have.
- `leak`: does anything tell what could not have been known yet? Here, and in anybody's table.
- `rewind`: past nights once more, as they were and under other policies.
- `online`: features for answers that cannot wait.
- `serve`: answers over HTTP.
- `answered`: what becomes of answers that were given.
- `upkeep`: the lake stays small, and keeps what somebody may still ask for.
- `pages`: what a person opens in a browser.
- `edge`: what a person sees, Airflow, and what `make up` starts.

Which package may import which, and which modules decide and touch nothing, are contracts in pyproject.toml.
"""

__version__ = "0.1.0"
"""The version, here and nowhere else: the package and `tiltyard --version` read it."""
