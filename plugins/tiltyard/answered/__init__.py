"""What becomes of answers that were given. In reading order: `request_log` brings them into the lake; `arm` says how
they turned out, `skew` whether their features are as at night; `fallback_audit` counts who answered, and by
`explanation` a person is asked about a safe default that lasts. `report` is what a person is told of all this.
"""
