"""What holds for all models together: models/portfolio.yaml, read into frozen, strict objects.

Who hears of what, who may answer, how often people are interrupted and models trained, and what the machine costs.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from tiltyard.errors import BadInput
from tiltyard.spec import Duration, Money, Spec, Strict, described, read_all
from tiltyard.words import Who, meant, person
from tiltyard.yaml_files import line_of, problems, read_yaml


class Budget(Strict):
    """How many retrains for nothing the portfolio may cost, whatever the number of models."""

    false_retrains_per_model_year: Annotated[float, Field(gt=0, le=52)] = 1.0
    """Retrains for nothing per model and year, in expectation."""
    false_retrains_per_year: Annotated[float, Field(gt=0)] | None = None
    """Retrains for nothing per year of the whole portfolio, shared equally by its models. The smaller of the two
    counts. None: only the other one does."""

    def nights_between(self, models: int) -> float:
        """Nights of one model between two false alarms, in expectation: what its detector has to promise."""
        share = self.false_retrains_per_model_year
        if self.false_retrains_per_year is not None:
            share = min(share, self.false_retrains_per_year / max(models, 1))
        return 365.25 / share


class Trainings(Strict):
    """How much may be trained."""

    per_night: Annotated[int, Field(ge=1)] = 10
    """Retrains that a night grants, of all models together."""
    at_once: Annotated[int, Field(ge=1)] = 2
    """Trainings that run at the same time, on the CPU."""
    on_gpu: Annotated[int, Field(ge=1)] = 1
    """Trainings of models with `device: cuda` that run at the same time, beside those."""
    max_cooldown: Duration = timedelta(days=56)
    """Limit of the cooldown of a model whose retrains make nothing better."""


class SharedBreak(Strict):
    """From how many models on a fault that they have in common is one incident of what feeds them."""

    models: Annotated[int, Field(ge=2)] = 3
    """Models that have to show it."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share that has to show it, of the models that read the node and were looked at."""


AlertKind = Literal[
    "approve", "uncounted", "operate", "explain", "table", "incident", "worse", "refused", "quarantined", "failed",
    "stopped", "unanswered", "undelivered", "touched", "damaged", "copying", "unerased",
]  # fmt: skip
"""What a message is about."""
PORTFOLIO = "portfolio.yaml"
"""File beside the models' folders that says what holds for all of them."""
ADDRESS = r"^((env|webhook):[A-Z][A-Z0-9_]{0,99}|connection:[A-Za-z0-9_.-]{1,100})$"
"""How an address is named: it may hold a secret, so that no text has it."""


class Route(Strict):
    """Who hears of what. Every route that fits is taken."""

    owners: tuple[str, ...] = ()
    """Owners of models whose messages go here. Empty: those of everybody, and what is about the whole portfolio."""
    tiers: tuple[Literal[1, 2, 3], ...] = ()
    """Stakes of the models that are concerned. Empty: any."""
    kinds: tuple[AlertKind, ...] = ()
    """What the messages are about. Empty: anything."""
    to: Annotated[tuple[Annotated[str, StringConstraints(pattern=ADDRESS)], ...], Field(min_length=1)]
    """Addresses of Apprise, by name: `env:NAME`, a variable of the environment, or `connection:NAME`, one of Airflow
    with the address as its password; and `webhook:NAME` of another system, with its URL in the variable `NAME` and the
    secret that it is signed with in `NAME_SECRET`."""

    def fits(self, owner: str, tier: int, kind: str) -> bool:
        """Whether a message goes here."""
        own = not self.owners or owner in self.owners
        return own and (not self.tiers or tier in self.tiers) and (not self.kinds or kind in self.kinds)


class Delegate(Strict):
    """Who answers in somebody's stead, and until when."""

    from_: Annotated[str, Field(alias="from", min_length=1)]
    """Whose stead it is: one of `people`."""
    to: Annotated[str, Field(min_length=1)]
    """Who answers."""
    until: date
    """The last day on which it counts, UTC."""
    tell: tuple[Annotated[str, StringConstraints(pattern=ADDRESS)], ...] = ()
    """Addresses of Apprise, by name, that hear of what waits for an answer, beside those of the routes."""


class Approvers(Strict):
    """Who may answer for an owner's models."""

    people: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Names, as those people are logged in."""
    delegates: tuple[Delegate, ...] = ()
    """Who answers in their stead."""

    @model_validator(mode="after")
    def _of_somebody(self) -> "Approvers":
        for one in self.delegates:
            if not any(person(one.from_) == person(name) for name in self.people):
                raise ValueError(f"'{one.from_}' hands on what is not theirs; name one of people: {list(self.people)}")
        return self

    def on(self, day: date) -> tuple[Delegate, ...]:
        """The delegates whose time has not passed on a day."""
        return tuple(one for one in self.delegates if day <= one.until)

    def names(self, day: date, asked_by: Collection[str] = (), who: Who = person) -> tuple[str, ...]:
        """Who may answer on a day, each once: the people, and who stands in for one of them. Neither whoever asked nor
        who would answer in their stead. `who`: which names are one person's (`Portfolio.who`)."""
        own = {who(name) for name in asked_by}
        deputies = (one.to for one in self.on(day) if who(one.from_) not in own)
        found = {who(name): name.strip() for name in (*deputies, *self.people)}
        return tuple(name for key, name in found.items() if key not in own)


class Pages(Strict):
    """How often people are interrupted. What must not wait always comes."""

    per_owner_week: Annotated[int, Field(ge=0, le=1_000)] = 3
    """Messages that an owner gets at once, in seven days; the others come in the digest of the morning."""
    digest: Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "07:00"
    """When the digest is sent, UTC."""
    patience: Duration = timedelta(hours=2)
    """How long what may end by itself, like a stage that failed and is tried again, is left alone."""


class Prices(Strict):
    """What the machine costs. Without them costs are shown in seconds and bytes alone."""

    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "EUR"
    """The unit, which `gate.cost` and `gate.error_cost` of a model whose worth is asked for are in as well."""
    cpu_hour: Money = 0.0
    """An hour of one core."""
    gb_hour: Money = 0.0
    """A gigabyte of memory for an hour."""
    gb_month: Money = 0.0
    """A gigabyte that is stored for a month of 30 nights."""


class Portfolio(Strict):
    """What holds for all models together: models/portfolio.yaml. Every field has a default."""

    budget: Budget = Budget()
    """Retrains for nothing that are afforded."""
    trainings: Trainings = Trainings()
    """Trainings that are afforded."""
    shared_break: SharedBreak = SharedBreak()
    """When a fault that models have in common is one incident."""
    routes: tuple[Route, ...] = ()
    """Who hears of what. Empty: nobody is told, and what waits stands on the page."""
    pages: Annotated[Pages, Field(validate_default=True)] = Pages()
    """How often people are interrupted."""
    prices: Prices | None = None
    """What the machine costs. None: nothing is priced."""
    approvers: dict[str, Approvers] = Field(default_factory=dict)
    """Owner → who may answer for its models: approve a promotion, confirm an operation. An owner that is not here:
    anybody but whoever asked."""
    people: dict[Annotated[str, Field(min_length=1)], tuple[Annotated[str, Field(min_length=1)], ...]] = Field(
        default_factory=dict
    )
    """A person's name → the other names under which that person is logged in or asks, as on a command line. Who is not
    here has one name."""

    @model_validator(mode="after")
    def _each_name_is_of_one(self) -> "Portfolio":
        of: dict[str, str] = {}
        for name, others in self.people.items():
            for one in (name, *others):
                if of.setdefault(person(one), name) != name:
                    raise ValueError(f"people: '{one}' is a name of {of[person(one)]} and of {name}; leave one out")
        return self

    @cached_property
    def _first_names(self) -> dict[str, str]:
        return {person(one): person(name) for name, others in self.people.items() for one in (name, *others)}

    def who(self, name: str | None) -> str:
        """What all names of a person have in common."""
        return self._first_names.get(person(name), person(name))

    def addresses(self, owner: str, tier: int, kind: str, day: date | None = None) -> tuple[str, ...]:
        """The addresses that a message goes to, each once; none where no route fits. On a `day` those of the owner's
        delegates as well, of what they may answer."""
        named = [to for route in self.routes if route.fits(owner, tier, kind) for to in route.to]
        if day is not None and kind in ("approve", "uncounted", "operate") and owner in self.approvers:
            named += [to for one in self.approvers[owner].on(day) for to in one.tell]
        return tuple(dict.fromkeys(named))

    def may_answer(self, owner: str, day: date, asked_by: Collection[str] = ()) -> tuple[str, ...] | None:
        """Who may answer for an owner's models on a day (`Approvers.names`); None: anybody but whoever asked."""
        return self.approvers[owner].names(day, asked_by, self.who) if owner in self.approvers else None


def load_portfolio(models: Path | str) -> Portfolio:
    """What `models`/portfolio.yaml says for all models; the defaults without it. Raises BadInput with file and line."""
    path = Path(models) / PORTFOLIO
    try:
        node, content = read_yaml(path)
    except FileNotFoundError:
        return Portfolio()
    if content is not None and not isinstance(content, dict):
        raise BadInput(f"{path}:1: this is a mapping like 'budget: {{false_retrains_per_model_year: 1}}'.")
    try:
        return Portfolio(**{str(key): value for key, value in (content or {}).items()})
    except ValidationError as error:
        raise BadInput(problems(path, node, error)) from None


def check_portfolio(models: Path | str, day: date | None = None) -> tuple[str, ...]:
    """What of `models`/portfolio.yaml is not as somebody may think, a sentence each: owners of whom no model is, which
    has no effect, and, on a `day`, fewer who may answer for a model of tier 1 than its gate asks for.

    Raises BadInput where the file does not hold, or such a name is nearly that of an owner: whoever misspells one of
    `approvers` lets anybody answer for its models, and a message of a route that is for nobody reaches nobody.
    """
    rules, path = load_portfolio(models), Path(models) / PORTFOLIO
    specs = read_all(models)[0]
    owners = {spec.owner for spec in specs}
    named: list[tuple[tuple[str | int, ...], str]] = [(("approvers", name), name) for name in rules.approvers]
    named += [(("routes", place), name) for place, route in enumerate(rules.routes) for name in route.owners]
    strangers = [(where, name) for where, name in named if name not in owners]
    for where, name in strangers if owners else ():
        alike = [owner for owner in owners if person(owner) == person(name)]
        if nearly := f"; did you mean {alike[0]}" if alike else meant(name, owners):
            line = line_of(read_yaml(path)[0], where)
            raise BadInput(f"{path}:{line}: {where[0]}: no model is owned by '{name}'{nearly}?")
    return (
        *(f"{PORTFOLIO}: {where[0]} names {name}, who owns no model; it has no effect" for where, name in strangers),
        *(_too_few(rules, specs, day) if day else ()),
    )


def _too_few(rules: Portfolio, specs: Iterable[Spec], day: date) -> Iterator[str]:
    """The models of tier 1 of which no promotion can be approved, whoever asks for it."""
    for spec in specs:
        may = rules.may_answer(spec.owner, day) if spec.tier == 1 else None
        if may is not None and len(may) < spec.gate.approvals:
            yield (
                f"{PORTFOLIO}: {spec.name} asks for {spec.gate.approvals} approvals, and approvers of {spec.owner} "
                f"names {', '.join(may) or 'nobody'}, so that none of its promotions can be approved; name one more, "
                "or write approvals: 1 under its gate"
            )


def json_schema() -> dict[str, Any]:
    """JSON schema of portfolio.yaml."""
    return described(Portfolio)
