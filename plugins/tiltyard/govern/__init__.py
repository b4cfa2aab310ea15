"""Whether the world has moved, and what is done about it. The drift stage, per model: `drift` (`look`, what there is of
one version → `detector` → `change`, which decides → `raw`, what Evidently says of the rows and draws). For all models
together: `grants` (`lineage` → `history` → `incident`, what models have in common → `routine`, what a spec asks for
without an alarm → `governor`, which decides).
"""
