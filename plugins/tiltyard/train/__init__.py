"""The training stage, from published features to a registered challenger: `replay`, the past,
then and now (`history`, what the lake remembers of who wrote what → `comparison` → `replay_page`) → `encoding` →
`training` (tune, fit, look) with `evaluation` (how good scores were) → `profile` (histograms of every column) →
`scorer` (a version in memory) → `registry`.
"""
