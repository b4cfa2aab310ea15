# One image for every part of Airflow, its workers and the MLflow server; see docker-compose.yml.
FROM python:3.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/tiltyard

COPY requirements.txt ./
RUN pip install --no-deps --require-hashes -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY plugins plugins
COPY dags dags
COPY dbt dbt
COPY expectations expectations
COPY models models
RUN pip install --no-deps --no-build-isolation --no-index -e . \
    && useradd --uid 50000 --create-home tiltyard \
    && mkdir -p /var/lib/tiltyard \
    && chown -R tiltyard:tiltyard /var/lib/tiltyard /opt/tiltyard/dbt

USER tiltyard
