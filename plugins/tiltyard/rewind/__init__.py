"""Past nights once more: `hindcast` (the loop over them), `backtest` (`policy` → `past` → `outcome`: the same nights
under several policies), both with a `worker` or two beside them.
"""
