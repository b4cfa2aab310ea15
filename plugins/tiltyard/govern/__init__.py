"""Whether the world has moved, and what is done about it. The drift stage, per model: `drift` (`detector` → `change`).
For all models together: `grants` (`lineage` → `governor`).
"""
