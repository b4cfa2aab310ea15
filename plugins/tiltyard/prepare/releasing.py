"""Which of the checkout's specs, suites and dbt files take effect, and what stays as it was.

A text is refused by what `tiltyard validate` holds against it, or by dbt when it does not parse. Only it is: its last
accepted text stays in force, or it is not there yet, and everything else is accepted. What was accepted is one release
(`tiltyard.release`), a night names the one that it ran under, and a text that is mended is accepted the next time.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath

import yaml

from tiltyard import release, suites
from tiltyard.errors import BadInput, TiltyardError
from tiltyard.portfolio_rules import check_portfolio
from tiltyard.prepare import contracts, project, transform
from tiltyard.rails import Rails
from tiltyard.records import AcceptedRelease, RefusedText
from tiltyard.release import PARTS, Texts
from tiltyard.settings import Settings
from tiltyard.spec import Spec, load

NEEDED = (
    "expectations/freshness.yaml",
    "expectations/features/default.yaml",
    "expectations/leakage.yaml",
    "expectations/predictions.yaml",
)
"""Suites without which no night can be judged."""
NIGHT = timedelta(days=1)
LEFTOVER_S = 3_600
"""Seconds after which the folder of a trial is nobody's any more."""

log = logging.getLogger(__name__)


def accept(rails: Rails, now: datetime, *, by: str) -> AcceptedRelease:
    """Put what is acceptable of the checkout in force. The one in force when nothing has changed; twice is once.

    `rails` as they were opened for the checkout, not for a release (`release.in_force`). `by`: who does that, several
    with a comma between them; the ledger keeps it with what has changed.
    """
    settings = rails.settings
    with rails.lake.exclusive("release"):
        last = rails.ledger.release()
        folder = _in_force(settings, last)
        before = release.stored(folder)
        texts, missing = _checkout(settings, before)
        checkout = _digest(texts, missing)
        is_whole = last is not None and folder is not None and release.digest(before) == last.digest
        if last is not None and folder is not None and is_whole and last.checkout == checkout:
            if folder != release.current(settings):
                release.put_in_force(settings, folder)
            return last
        try:
            accepted, refused = compose(settings, before, texts)
            kept = release.keep(settings, accepted)
        except OSError as error:
            if last is None or not is_whole:
                raise
            return _as_before(rails, last, before, texts, error, now, by)
        made = _made(accepted, [*missing, *refused], checkout, now)
        made = replace(made, released_by=by, changed=_changed(last, before if is_whole else {}, made, accepted))
        _begin(rails, before, accepted, kept)
        rails.ledger.accept(made)
        release.put_in_force(settings, kept)
        return made


def _changed(last: AcceptedRelease | None, before: Texts, made: AcceptedRelease, accepted: Texts) -> tuple[str, ...]:
    """What a release changed. `before`: the texts of the one before it, as the ledger's digest has them; none where its
    folder is gone or somebody wrote into it, who could have put down there what he was about to release: all counts
    then, but for a folder that is only mended."""
    return () if last is not None and last.digest == made.digest else release.changed(before, accepted)


def _as_before(
    rails: Rails, last: AcceptedRelease, before: Texts, texts: Texts, error: OSError, now: datetime, by: str
) -> AcceptedRelease:
    """The release in force, with what of the checkout is another text by now as refused: where releases lie nothing can
    be written. No night waits for that. The next look tries again, since the checkout is not the one of the release."""
    reason = (
        f"{rails.settings.home / 'releases'} takes no files ({error.strerror or error}); make room, or mend the folder."
    )
    changed = sorted(path for path in {*before, *texts} if before.get(path) != texts.get(path))
    places = dict.fromkeys("/".join(path.split("/")[:2]) if path.startswith("models/") else path for path in changed)
    refused = tuple(
        RefusedText(path=place, reason=reason, stands=bool(_below(place, before)) or place in before)
        for place in places
    )
    if refused == last.refused:
        return last
    made = replace(last, refused=refused, accepted_at=now, released_by=by, changed=())
    rails.ledger.accept(made)
    return made


def _in_force(settings: Settings, last: AcceptedRelease | None) -> Path | None:
    """The folder of the release in force: by the ledger, where the file that names it is gone, or names another one."""
    folder = release.current(settings)
    kept = release.kept(settings, last.digest) if last else None
    if kept is not None and folder != kept:
        log.warning(
            "%s does not name the newest release; it is %s, by the ledger.", release.pointer(settings), kept.name
        )
        return kept
    return folder


def _begin(rails: Rails, before: Texts, accepted: Texts, kept: Path) -> None:
    """Put down with which night every new model begins, and after which one every other that is gone has left.

    A new model begins with the next night of its source, or of its spine where other sources feed that. One that takes
    the place of another, which leaves with the same release and has the same spine, as one does that is renamed, begins
    with the first night that the other has not scored. One that comes back before another night was settled was never
    away. Those of a home's first release begin with its data.

    `before`: the texts of the release in force; `kept`: the folder of the one that follows it.
    """
    if not before:
        return
    gone = {name: _read_of(before, name) for name in sorted(_models(before) - _models(accepted))}
    scored = rails.ledger.newest_nights("shadow", list(gone))
    for name, (spine, source) in gone.items():
        if newest := _newest_settled(rails, spine, source):
            rails.ledger.leave(name, newest)
    for name in sorted(_models(accepted) - _models(before)):
        spec = load(kept / "models" / name)
        newest = _newest_settled(rails, spec.prediction.spine, spec.source)
        if newest is None:
            continue
        place_of = [other for other, (spine, _) in gone.items() if spine == spec.prediction.spine]
        done = [scored.get(other, newest - NIGHT) for other in place_of]
        if rails.ledger.left_after(name) == newest and not any(night >= newest for night in done):
            continue
        rails.ledger.begin(name, min([newest, *done]) + NIGHT)


def _read_of(texts: Texts, model: str) -> tuple[str, str]:
    """(spine, source) of a model that was accepted."""
    content = yaml.safe_load(texts[f"models/{model}/spec.yaml"])
    return str(content["prediction"]["spine"]), str(content.get("source", ""))


def _newest_settled(rails: Rails, spine: str, source: str) -> date | None:
    """The newest night that was settled for a model; None without one."""
    settled = rails.ledger.settled_at({spine}, 1).get(spine, {})
    run = rails.ledger.last_features_run(source, date.max)
    return max([*settled, *([run.night] if run else [])], default=None)


def in_force(checkout: Rails, now: datetime, *, by: str) -> tuple[Rails, AcceptedRelease]:
    """The rails under the release that `accept` puts in force, and the release. Both arguments as `accept` wants them,
    and `by` too."""
    accepted = accept(checkout, now, by=by)
    return replace(checkout, settings=release.in_force(checkout.settings)), accepted


def preview(rails: Rails, now: datetime) -> AcceptedRelease:
    """What `accept` would make of the checkout; nothing changes."""
    before = release.stored(_in_force(rails.settings, rails.ledger.release()))
    texts, missing = _checkout(rails.settings, before)
    accepted, refused = compose(rails.settings, before, texts)
    return _made(accepted, [*missing, *refused], _digest(texts, missing), now)


def _digest(texts: Texts, missing: Iterable[RefusedText]) -> str:
    """SHA-256 of the checkout: one that lacks a folder is another one than that which has it."""
    return release.digest({**texts, **{text.path: b"" for text in missing}})


def _checkout(settings: Settings, before: Texts) -> tuple[dict[str, bytes], list[RefusedText]]:
    """(the texts of the checkout, what is told of them). A folder that is not there takes nothing away: its texts stay
    as they are in force. Raises BadInput where none are."""
    texts, missing = release.working(settings), []
    for part, why in release.missing(settings).items():
        if not _below(part, before):
            raise BadInput(why)
        texts |= _below(part, before)
        missing.append(RefusedText(path=part, reason=why, stands=True))
    return texts, missing


def _made(accepted: Texts, refused: Iterable[RefusedText], checkout: str, now: datetime) -> AcceptedRelease:
    return AcceptedRelease(
        digest=release.digest(accepted),
        checkout=checkout,
        accepted_at=now,
        files=len(accepted),
        refused=tuple(sorted(refused, key=lambda text: text.path)),
    )


def compose(settings: Settings, before: Texts, texts: Texts) -> tuple[dict[str, bytes], list[RefusedText]]:
    """(the texts of a release, what of `texts` is refused). `before`: the texts of the release in force."""
    with ExitStack() as stack:
        releases = settings.home / "releases"
        releases.mkdir(parents=True, exist_ok=True)
        _sweep(releases)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".trial-", dir=releases)))
        trial = _Trial(settings, folder, before, texts)
        trial.choose_suites()
        trial.choose_dbt()
        trial.choose_models()
        return trial.accepted, trial.refused


def _sweep(releases: Path) -> None:
    """Take away what a trial has left that was killed: those that run now are younger."""
    for path in releases.glob(".trial-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_S:
                shutil.rmtree(path, ignore_errors=True)


Groups = dict[str, tuple[str, ...]]
"""Name → files that are taken together, or not at all."""


@dataclass(eq=False)
class _Trial:
    """A release that is being put together, as files in a folder of its own."""

    settings: Settings
    """Of the checkout."""
    folder: Path
    """Where what is tried is written."""
    before: Texts
    """What is in force."""
    texts: Texts
    """What lies in the checkout."""
    refused: list[RefusedText] = field(default_factory=list)
    """What was refused so far."""
    accepted: dict[str, bytes] = field(default_factory=dict)
    """What was accepted so far."""
    tried: int = 0
    """Number of folders that were written."""

    # -- suites ---------------------------------------------------------------------------------------------------

    def choose_suites(self) -> None:
        """Take every suite that can be read, one by one."""
        at = self._written(_below("expectations", self.texts))
        for path in sorted(_below("expectations", {**self.before, **self.texts})):
            if path not in self.texts:
                if path in NEEDED:
                    self._refuse((path,), f"{path} is gone, and no night can be judged without it; put it back.")
                continue
            suite = at.expectations / Path(path).relative_to("expectations")
            self._take((path,), at, partial(suites.load, suite))

    # -- the dbt project ------------------------------------------------------------------------------------------

    def choose_dbt(self) -> None:
        """Take the dbt project as it is; where it does not hold together, without the changed files that are at fault,
        then file by file."""
        groups, new = self._changed_groups(), self._written(_below("models", self.texts))
        aside: dict[str, str] = {}  # group → why it is left out
        while reason := self._dbt_fault(groups, aside, new):
            fault, why = reason
            if not fault:
                self._choose_those_that_go(groups, aside, new, why)
                break
            aside.update(dict.fromkeys(fault, why))
        self.accepted.update(self._dbt(groups, aside))
        for name, why in sorted(aside.items()):
            self._told(groups[name], why)

    def _changed_groups(self) -> Groups:
        """Name → the changed files of dbt that belong together: a table's SQL and its .yml."""
        old, new = _below("dbt", self.before), _below("dbt", self.texts)
        groups: dict[str, tuple[str, ...]] = {}
        for path in sorted({path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}):
            groups[PurePosixPath(path).stem] = (*groups.get(PurePosixPath(path).stem, ()), path)
        return groups

    def _dbt(self, groups: Groups, aside: Iterable[str]) -> dict[str, bytes]:
        """The dbt project of the checkout, with the files of the groups `aside` as they were before."""
        chosen = dict(_below("dbt", self.texts))
        for path in (path for name in aside for path in groups[name]):
            chosen.pop(path, None)
            if path in self.before:
                chosen[path] = self.before[path]
        return chosen

    def _dbt_fault(self, groups: Groups, aside: Mapping[str, str], new: Settings) -> tuple[tuple[str, ...], str] | None:
        """(the groups at fault, why), without any where it cannot be told; None when the project holds together.

        `new`: where the checkout's models are.
        """
        if not groups or set(groups) == set(aside):
            return None
        at = self._written({**self._dbt(groups, aside), **_below("models", self.before)})
        try:
            dbt = project.read(at)
            read = [contracts.read(at, source) for source in dbt.sources]
            contracts.tell_apart(at, sorted(read, key=lambda each: contracts.path_of(each.name) not in self.before))
            transform.parse(at, transform.trial(self.settings))
        except Exception as error:
            why = self._in_checkout(_reason(error), at)
            left = {name: paths for name, paths in groups.items() if name not in aside}
            return tuple(name for name, paths in left.items() if any(path in why for path in _mentions(paths))), why
        for name in sorted(_models(self.before) & _models(self.texts)):
            if _complaint(dbt, new, name) is None or (complaint := _complaint(dbt, at, name)) is None:
                continue
            # neither its new text fits nor the one in force: it would fail for what was written elsewhere
            needed = {group for group in groups if group in _tables(load(at.models / name))} - aside.keys()
            if needed:
                return tuple(sorted(needed)), f"{name} needs it as it was: {self._in_checkout(complaint, at)}"
        return None

    def _choose_those_that_go(self, groups: Groups, aside: dict[str, str], new: Settings, why: str) -> None:
        """Put those groups aside that do not go with the rest, where dbt does not say which it is: what makes no table,
        like the project's own file and its macros, first, since everything stands on it."""
        left = [name for name in groups if name not in aside]
        aside.update(dict.fromkeys(left, why))
        ground = [name for name in left if not any(path.startswith("dbt/models/") for path in groups[name])]
        self._take_together(ground, groups, aside, new)
        while self._take_together([name for name in left if name in aside], groups, aside, new):
            pass  # one may stand on another that comes after it

    def _take_together(self, names: Sequence[str], groups: Groups, aside: dict[str, str], new: Settings) -> bool:
        """Take of these groups out of `aside` what goes: all at once, or else by halves. True when any was taken."""
        if not names:
            return False
        without = {other: reason for other, reason in aside.items() if other not in names}
        if (fault := self._dbt_fault(groups, without, new)) is None:
            for name in names:
                del aside[name]
            return True
        if len(names) == 1:
            aside[names[0]] = fault[1]
            return False
        half = len(names) // 2
        halves = [self._take_together(part, groups, aside, new) for part in (names[:half], names[half:])]
        return any(halves)

    # -- models ---------------------------------------------------------------------------------------------------

    def choose_models(self) -> None:
        """Take every model whose spec holds and fits the dbt project that was accepted, and what holds for all."""
        at = self._written({**self.accepted, **_below("models", self.texts)})
        dbt = project.read(at)
        if "models/portfolio.yaml" in self.texts:
            self._take(("models/portfolio.yaml",), at, lambda: check_portfolio(at.models))
        for name in sorted(release.folders(self.settings.models) - _models(self.texts)):
            spec = self.settings.models / name / "spec.yaml"
            if name in _models(self.before) or os.path.lexists(spec):  # whoever deletes a model deletes its folder
                paths = tuple(sorted({f"models/{name}/spec.yaml", *_below(f"models/{name}/", self.before)}))
                why = f"{spec} is no file that can be read; put one there, or delete {spec.parent}."
                self._refuse(paths, why, f"models/{name}")
        for name in sorted(_models(self.texts)):
            paths = tuple(sorted(_below(f"models/{name}/", {**self.before, **self.texts})))
            self._take(paths, at, partial(_check, dbt, at, name), path=f"models/{name}")

    # -- the parts of it ------------------------------------------------------------------------------------------

    def _take(self, paths: tuple[str, ...], at: Settings, check: Callable[[], object], path: str | None = None) -> None:
        """Take files of the checkout that pass a check, made where they are tried, or leave them as they were."""
        try:
            check()
        except Exception as error:
            self._refuse(paths, self._in_checkout(_reason(error), at), path)
        else:
            self.accepted.update({path: self.texts[path] for path in paths if path in self.texts})

    def _refuse(self, paths: tuple[str, ...], why: str, path: str | None = None) -> None:
        """Leave files as they were."""
        self.accepted.update({path: self.before[path] for path in paths if path in self.before})
        self._told(paths, why, path)

    def _told(self, paths: tuple[str, ...], why: str, path: str | None = None) -> None:
        stands = any(path in self.before for path in paths)
        self.refused.append(RefusedText(path=path or min(paths), reason=why, stands=stands))

    def _written(self, texts: Texts) -> Settings:
        """The settings of texts that are tried, which are written to a folder that nobody has read before."""
        self.tried += 1
        folder = self.folder / str(self.tried)
        release.write(texts, folder)
        return self.settings.model_copy(update={part: folder / part for part in PARTS})

    def _in_checkout(self, reason: str, at: Settings) -> str:
        """A reason that names the files of the checkout, not those that were tried."""
        for part in PARTS:
            reason = reason.replace(str(getattr(at, part)), str(getattr(self.settings, part)))
        return reason


def _check(dbt: project.Project, at: Settings, model: str) -> None:
    """Hold a model against a dbt project. Raises BadInput."""
    project.check_spec(dbt, at, load(at.models / model))


def _complaint(dbt: project.Project, at: Settings, model: str) -> str | None:
    """What is wrong with a model beside a dbt project; None when nothing is."""
    try:
        _check(dbt, at, model)
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """Why a text is refused. What nobody foresaw refuses the text that it comes from as well: it would stop the night
    of everybody. Raises what is no fault of the text, like a full disk or somebody who is away: a refusal stands until
    the text is another one, and these pass."""
    if isinstance(error, BadInput):
        return str(error)
    if isinstance(error, TiltyardError | OSError | MemoryError) and not isinstance(error, FileNotFoundError):
        raise error
    log.exception("A text of the checkout cannot be read.", exc_info=error)
    return f"it cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}."


def _below(prefix: str, texts: Texts) -> dict[str, bytes]:
    """Those of the texts whose path begins with a folder."""
    folder = prefix.rstrip("/") + "/"
    return {path: content for path, content in texts.items() if path.startswith(folder)}


def _models(texts: Texts) -> set[str]:
    """The models that have a spec."""
    return {PurePosixPath(path).parts[1] for path in texts if PurePosixPath(path).match("models/*/spec.yaml")}


def _tables(spec: Spec) -> set[str]:
    """The tables that a model names."""
    popular = {spec.fallback.popular.table} if spec.fallback.popular else set()
    return {spec.prediction.spine, *spec.prediction.features, spec.label.table} | popular


def _mentions(paths: Iterable[str]) -> set[str]:
    """How dbt and we name a file in a reason: below the project."""
    return {PurePosixPath(path).relative_to("dbt").as_posix() for path in paths}
