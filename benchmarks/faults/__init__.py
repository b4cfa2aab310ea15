"""What `benchmarks/blast.py` is made of: a business of eight sources and forty models, the player of a night, what is
compared, and the faults that are put in."""
