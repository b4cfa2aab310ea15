"""The lake in order: `references` (which snapshots somebody may still ask for; pure) → `claims` (what refers to
snapshots, one query a kind) → `holds` (a person's word that nothing may go) → `retention` (how long rows are kept) →
`files` (few and whole) → `scrub` (a look at those that nobody read) → `letting_go` (of a damaged one) → `maintenance`
(the stage).
"""
