"""A person's right: `needles` and `hunt` (who is looked for), the places where something of them may lie (`lake_files`,
`lake_place`, `deliveries_place`, `home_places`, `names_place`, `online_place`, `database_places`;
`places` is the one list of them), `erase` and `subject`."""
