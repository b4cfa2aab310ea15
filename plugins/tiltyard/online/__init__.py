"""Features for answers that cannot wait: the newest row of every view by key.

`store` (the interface, and which row wins), `lmdb_store` and `redis_store` (the two kinds), `lmdb_header` (is LMDB's
file damaged?), `connection` (which of them the settings name), `lookup` (what a request finds), `fill` (from the
lake, every night), `check` (what was served against the lake), `streams` (Kinesis and Kafka into the store).
"""
