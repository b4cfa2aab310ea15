"""What reads at once reads over one connection, as of one moment."""

from datetime import date
from threading import Thread

import pytest
import sqlalchemy as sa

from tiltyard import reading
from tiltyard.rails import Rails

NIGHT = date(2025, 5, 30)


def test_what_another_writes_meanwhile_is_in_no_half_of_it(rails: Rails) -> None:
    ledger = rails.ledger
    with reading.at_once(ledger.engine):
        before = ledger.left_after("churn")
        writer = Thread(target=ledger.leave, args=("churn", NIGHT))  # over a connection of its own
        writer.start()
        writer.join()
        assert (before, ledger.left_after("churn")) == (None, None)
    assert ledger.left_after("churn") == NIGHT


def test_it_takes_one_connection_and_gives_it_back_as_it_was(rails: Rails) -> None:
    def asked() -> tuple[int, str]:
        with reading.connection(rails.ledger.engine) as connection:
            row = connection.execute(sa.text("select pg_backend_pid(), current_setting('transaction_read_only')")).one()
            return row[0], row[1]

    with reading.at_once(rails.ledger.engine):
        assert len({asked() for _ in range(3)}) == 1 and asked()[1] == "on"
        with pytest.raises(sa.exc.InternalError, match="read-only"), reading.connection(rails.ledger.engine) as one:
            one.execute(sa.text("delete from event"))
    assert asked()[1] == "off"
    rails.ledger.leave("churn", NIGHT)
