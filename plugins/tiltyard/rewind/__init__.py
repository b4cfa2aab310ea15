"""Past nights once more: `hindcast` (the loop over them), and `backtest` (the same nights under several policies:
`policy` → `past` → `trainings` → `play` → `outcome` → `hindsight`, which makes a `trial` of it), both with a `worker`
or two beside them.
"""
