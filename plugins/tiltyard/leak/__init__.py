"""Does anything tell what could not have been known yet? With write times: `leakage`. Without them: `evidence`
(`reading` → `case` → `intervals` → `outcome_time`, `life`, `association`). Anybody's table, without the rails: `audit`
(`tabular` → `leakage`, `evidence` → `page`).
"""
