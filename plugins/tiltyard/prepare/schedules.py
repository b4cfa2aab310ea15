"""Cron expressions by which sources are looked for. Pure. All of them are UTC."""

from datetime import date, datetime, timedelta

from croniter import CroniterBadDateError, croniter

from tiltyard import clock

NEVER = ("none", "")
"""Spellings of "it does not start by itself"."""
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
"""What Airflow calls them → the expression."""


def checked(text: str) -> str:
    """The text itself. Raises ValueError where it is no schedule."""
    expression = cron(text)
    if expression is not None and (len(expression.split()) != 5 or not croniter.is_valid(expression)):
        raise ValueError(f"'{text}' is no schedule; write a cron expression like '0 5 * * *', @daily, or none")
    if expression is not None:
        try:
            croniter(expression, clock.midnight(date(2024, 1, 1))).get_next()
        except CroniterBadDateError:
            raise ValueError(f"'{text}' is a day that never comes; write a cron expression like '0 5 * * *'") from None
    return text


def cron(text: str) -> str | None:
    """A schedule as a cron expression; None for one that never starts by itself."""
    text = text.strip()
    return None if text.lower() in NEVER else PRESETS.get(text.lower(), text)


def covers(expression: str, every: timedelta) -> bool:
    """Whether on a day with runs there is one after each part of it that is `every` long, before the next one ends."""
    first: datetime = croniter(expression, clock.midnight(date(2024, 1, 1)) - timedelta(seconds=1)).get_next(datetime)
    day = clock.midnight(first.date())
    runs = croniter(expression, day - timedelta(seconds=1))
    ends = set()
    while (run := runs.get_next(datetime)) < day + clock.NIGHT:
        ends.add(clock.floor(run, every))
    return len(ends) == clock.NIGHT // every


def step(expression: str | None) -> timedelta:
    """The shortest part of a night that a schedule has a run after each of; a whole one where it is for nights."""
    return min((part for part in clock.EVERY[1:] if expression and covers(expression, part)), default=clock.NIGHT)


def has_run(expression: str | None, night: date) -> bool:
    """Whether a run that does a night is due by this expression: one at any time of the day that names it."""
    if expression is None:
        return False
    start = clock.midnight(night)
    following = croniter(expression, start - timedelta(seconds=1)).get_next(type(start))
    return bool(following < start + timedelta(days=1))
