"""What the serving benchmarks are made of: servers to compare with, a load generator, models that fail on purpose."""
