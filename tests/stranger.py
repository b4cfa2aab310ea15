"""A stranger's table, made up: appointments of a clinic, as an export of its system has them."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

FIRST = date(2016, 3, 1)


def appointments(rows: int = 20_000, days: int = 90, seed: int = 1) -> pd.DataFrame:
    """Mixed-case headers, one that is no identifier; days as midnights; closed on Sundays. Whether somebody comes hangs
    on who it is and how far ahead it was made; a message is sent to some, between the booking and the day."""
    rng = np.random.default_rng(seed)
    every_day = pd.date_range(FIRST, periods=days, freq="D")
    created = rng.choice(every_day[every_day.dayofweek != 6].to_numpy(), rows)
    patient = rng.integers(0, rows // 7, rows)
    careless = rng.beta(0.8, 2.5, rows // 7)[patient]
    ahead = np.minimum(rng.geometric(0.2, rows) - 1, 20)
    on = pd.DatetimeIndex(created + ahead.astype("timedelta64[D]"))
    on = on + pd.to_timedelta((on.dayofweek == 6).astype(int), unit="D")
    missed = rng.random(rows) < np.clip(0.9 * careless + 0.02 * ahead, 0, 0.95)
    at = pd.DatetimeIndex(created) + pd.to_timedelta(rng.integers(8 * 3600, 18 * 3600, rows), unit="s")
    age = rng.integers(-2, 99, rows)
    return pd.DataFrame(
        {
            "PatientId": 29_872_499_824 + 7 * patient,
            "AppointmentID": 5_600_000 + rng.permutation(rows),
            "Gender": rng.choice(["F", "M"], rows),
            "ScheduledDay": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "AppointmentDay": on.strftime("%Y-%m-%dT00:00:00Z"),
            "Age": np.where(age < 0, "NA", age.astype(str)),
            "Neighbourhood": rng.choice(["JARDIM DA PENHA", "CENTRO", "ITARARÉ", "MARIA ORTIZ"], rows),
            "SMS_received": ((ahead > 2) & (rng.random(rows) < 0.6)).astype(int),
            "No-show": np.where(missed, "Yes", "No"),
        }
    )


def write(path: Path, table: pd.DataFrame, *, delimiter: str = ";", encoding: str = "utf-8") -> Path:
    """The table as a file."""
    table.to_csv(path, sep=delimiter, index=False, encoding=encoding)
    return path


def purchases(rows: int = 6_000, days: int = 120, seed: int = 2) -> pd.DataFrame:
    """Receipts of six shops in three towns, whose names hold what keys are parted by; nothing in a row is an outcome.

    Some customers come often, others once. A receipt has no number of its own, and two may be of one second.
    """
    rng = np.random.default_rng(seed)
    customers = rows // 12
    eager = rng.gamma(0.7, 1.0, customers)
    customer = rng.choice(customers, rows, p=eager / eager.sum())
    at = pd.Timestamp(FIRST) + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, rows)), unit="s")
    shop = rng.choice(["North", "South|x"], rows)
    return pd.DataFrame(
        {
            "At": at.strftime("%Y-%m-%d %H:%M:%S"),
            "CustomerNo": customer + 1,
            "Shop": shop,
            "Town": rng.choice(["A", r"B\|c", "C"], rows),
            "Payment": rng.choice(["card", "cash", "voucher"], rows, p=[0.6, 0.3, 0.1]),
            "Amount": np.round(rng.gamma(2.0, 12.0, rows), 2),
            "Items": rng.integers(1, 9, rows),
        }
    )
