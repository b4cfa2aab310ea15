"""What a source does not bring itself is fetched: `step` lays what is new at another place into the landing zone, as
deliveries, before ingest looks there.

`credentials` says who reads; `files`, `database` and `topic` each read one kind of place; `rows` makes deliveries of
rows. Where to fetch from is said by a table's contract (`places`).
"""
