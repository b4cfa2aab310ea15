"""The training stage, from published features to a registered challenger, in reading order.

`training` is the stage: `leakage_gate` (may a model learn from this frame? with `written_later`) → `replay` (the
millisecond test, with `history`, what the lake remembers of who wrote what, `reach`, `comparison`, `proof`,
`replay_page` and `replay_document`) → `candidate`, which is made of `blocks` (the frame's rows, cut by time),
`encoding`, `fit` (tune, fit, measure), `export` (to ONNX), `look` (pictures) and `profile` (histograms of every column)
→ `registry`. `scorer` is a version in memory, `evaluation` how good scores were.
"""
