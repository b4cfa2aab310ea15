"""From somebody's table to a source and a model: what a person would have written, from what the rows themselves say.

`naming` (headers become plain names), `found` (records: what a table looks like, and what its columns are taken for),
`inferring` (what rows say), `afar` (a sample is brought from elsewhere), `sample` (a file is read), `yaml_text` (values
as YAML), `source_texts` (the files of a source), `new_source` (a file is looked at), `cutting` (one export becomes the
deliveries that would have brought it), `asked` (records: a question about rows), `delivered` (what the deliveries say
of it), `model_texts` and `promise_texts` (the files of a model), `reviewing`, `review_texts` and `new_review` (the same
of a question about whoever rows are of), `planned` (records: what would be written), `new_model` (a question is looked
at), and `write`, the one place that writes into a checkout, and never over a file that is there.
"""
