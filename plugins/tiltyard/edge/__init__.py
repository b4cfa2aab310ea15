"""Where the house ends. What a person sees: `document` (what is said of a model) → `status` (where it comes from) →
`describe` and `describe_nights` (as text) and `overview` (for the portfolio page). Airflow: `assets` → `task_run` →
`nights`, `answers` → `approvals`, `explanations` → `work` → `orchestration` (what DAG files use), `dag_page`. What
`make up` does: `airflow_settings` → `processes`, `airflow_api` → `services` → `quickstart`.
"""
