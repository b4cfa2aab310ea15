"""Where the house ends. What a person sees: `document` (what is said of a model) → `recorded` (as the ledger has it) →
`status` (with what only the lake can say) → `describe` and `describe_nights` (as text). The pages: `board` (all models
at a glance), `board_query`; of a model `timeline`, `comparing`, `feature_rows`, `course`; `source_page`,
`incident_page`, `night_page`; `overview` opens them. Airflow: `assets` → `task_run` → `nights`, `answers` →
`approvals`, `explanations` → `work` → `orchestration` (what DAG files use), `dag_page`. What `make up` does:
`airflow_settings` → `processes`, `airflow_api` → `services` → `quickstart`.
"""
