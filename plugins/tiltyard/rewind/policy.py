"""A policy to try in a hindcast: what it says otherwise than the specs and portfolio.yaml.

    # cautious.yaml
    gate: {alpha: 0.01, min_shadow: 14d}
    drift: {on_drift: report}
    retrain: {every: 28d}
    portfolio: {budget: {false_retrains_per_model_year: 0.5}}
    models:
      sla_breach: {gate: {max_slice_loss: 0.05}}

Only the gate, drift, retrains without an alarm and the portfolio's rules can differ: they decide about models. Whatever
makes a model (its features, label, estimator) is the same under every policy, so that a night's training is done once
for all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import Portfolio
from tiltyard.records import JsonObject
from tiltyard.spec import Name, Spec, Strict
from tiltyard.yaml_files import problems, read_yaml

CURRENT = "current"
"""The name of the policy that the specs and portfolio.yaml are, where `--policy` names no file."""


class Overlay(Strict):
    """Fields of a spec's gate, drift and retrain sections, as they are written there."""

    gate: JsonObject = Field(default_factory=dict)
    """Fields of the gate."""
    drift: JsonObject = Field(default_factory=dict)
    """Fields of drift."""
    retrain: JsonObject = Field(default_factory=dict)
    """Fields of retrain."""


class PolicyFile(Overlay):
    """The content of a policy file."""

    portfolio: JsonObject = Field(default_factory=dict)
    """Fields of portfolio.yaml."""
    models: dict[Name, Overlay] = Field(default_factory=dict)
    """Model → what is said of it alone."""


@dataclass(frozen=True)
class Policy:
    """A policy, applied to the models of one hindcast."""

    name: Annotated[str, StringConstraints(min_length=1)]
    """Its name: that of its file."""
    specs: tuple[Spec, ...]
    """The models' specs as the policy has them."""
    portfolio: Portfolio
    """The portfolio's rules as the policy has them."""


def current(specs: Iterable[Spec], portfolio: Portfolio) -> Policy:
    """The policy in force: the specs and the portfolio's rules as they are."""
    return Policy(CURRENT, tuple(specs), portfolio)


def load(path: Path, specs: Iterable[Spec], portfolio: Portfolio) -> Policy:
    """The policy in a YAML file, named by the file. Raises BadInput with file and line when it does not hold."""
    try:
        node, content = read_yaml(path)
    except OSError as error:
        raise BadInput(
            f"The policy {path} cannot be read ({error.strerror or error}); name a YAML file, or '{CURRENT}'."
        ) from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}:1: a policy is a mapping like 'gate: {{alpha: 0.01}}'.")
    try:
        read = PolicyFile(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise BadInput(problems(path, node, error)) from None
    specs = tuple(specs)
    strange = sorted(set(read.models) - {spec.name for spec in specs})
    if strange:
        names = ", ".join(spec.name for spec in specs)
        raise BadInput(f"{path}: models names '{strange[0]}', which is not in this hindcast; it replays {names}.")
    applied = tuple(_applied(path, node, spec, read) for spec in specs)
    try:
        whole = Portfolio(**merged(portfolio.model_dump(mode="json"), read.portfolio))
    except ValidationError as error:
        raise BadInput(problems(path, node, error, under=("portfolio",))) from None
    return Policy(path.stem, applied, whole)


def _applied(path: Path, node: Any, spec: Spec, read: PolicyFile) -> Spec:
    content = spec.model_dump(mode="json", by_alias=True)
    for overlay in (read, read.models.get(spec.name)):
        if overlay is not None:
            content = merged(content, {"gate": overlay.gate, "drift": overlay.drift, "retrain": overlay.retrain})
    try:
        return Spec(**content)
    except ValidationError as error:
        raise BadInput(f"{problems(path, node, error)} (for {spec.name})") from None


def merged(base: JsonObject, changes: JsonObject) -> JsonObject:
    """`base` with `changes` in it: mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result
