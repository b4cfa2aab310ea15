"""Where the house ends: `status` and `describe` (what a person sees), `orchestration` (Airflow), `services` (what
`make up` starts), `quickstart` (what `make up` does).
"""
