"""Which version may serve. The shadow stage: `shadow` (`scoring` → truth and its evaluation → `estimate`, before the
truth has come, and `arrival` with `runoff`: when the truth comes, and whether it still does; `night_figures`: what the
pages show of it). The promotion stage:
`promotion` (`pairs` → `sequential` → `gate` → `best` → `evidence_page`). `operate`: what a person puts in service by
hand.
"""
