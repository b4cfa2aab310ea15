"""Clients of AWS for the places that are read there, and what their errors say."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare.fetch import credentials
from tiltyard.prepare.fetch.credentials import Connection
from tiltyard.settings import Settings


@contextmanager
def client(
    service: Literal["s3", "kinesis"], address: str, connection: Connection | None, settings: Settings
) -> Iterator[Any]:
    """A client of a service of AWS; keys from the connection, else from the usual AWS_* variables and files.

    What goes wrong with it in the body is Unavailable for a place that is away, BadInput for one that refuses.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    extra = connection.extra if connection else {}
    scheme = "http" if settings.s3_insecure else "https"
    own = f"{scheme}://{settings.s3_endpoint}" if settings.s3_endpoint and service == "s3" else None
    region = settings.s3_region if service == "s3" else None
    refused = False
    try:
        opened = boto3.session.Session().client(  # of its own: the shared one keeps the keys that it met first
            service,
            endpoint_url=extra.get("endpoint_url") or own,
            region_name=extra.get("region_name") or region,
            aws_access_key_id=connection.login if connection else None,
            aws_secret_access_key=connection.password if connection else None,
            aws_session_token=extra.get("aws_session_token"),
            config=Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3}),
        )
        try:
            yield opened
        finally:
            opened.close()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        refused = status < 500
        reason = code or str(status)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is none
        reason = credentials.without(str(error).rstrip("."), connection)
        refused = isinstance(error, NoCredentialsError | PartialCredentialsError)
    else:
        return
    if refused:
        raise BadInput(f"{address} refuses to be read ({reason}); mend the address, the keys, or their rights.")
    raise Unavailable(f"{address} does not answer ({reason}).")
