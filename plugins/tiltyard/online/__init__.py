"""Features for answers that cannot wait: the newest row of every view by key, and the streams that fill it.

`streams` (Kinesis and Kafka into the store and into the landing zone).
"""
