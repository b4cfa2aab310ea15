"""Who released what a version is made of that its champion is not made of: they may not approve it either.

A text is counted once, with the first version that is made of it and becomes champion: what the champion was made of
already is not asked about again. It counts where the version can be another one by it: the model's own folder, the SQL
and the suites of the tables that it stands on, and what all tables share, like a macro. What another model or table is
made of does not, nor does models/portfolio.yaml, of which no version is made.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath

from tiltyard import release
from tiltyard.clock import NIGHT
from tiltyard.prepare.publishing import Feeding
from tiltyard.rails import Rails
from tiltyard.records import AcceptedRelease, Version
from tiltyard.spec import Spec, load
from tiltyard.words import UNKNOWN


def behind(rails: Rails, spec: Spec, challenger: int, champion: int | None) -> tuple[str, ...]:
    """Who released what a challenger is made of and its champion is not (None: the safe default, so that all of it
    counts), each once; UNKNOWN stands for a release of which it is not kept, since there was one of which it is."""
    made = rails.ledger.version(spec.name, challenger)
    before = rails.ledger.version(spec.name, champion) if champion is not None else None
    releases = rails.ledger.releases()[::-1]
    if made is None or all(one.released_by is None for one in releases):
        return ()
    since = _built_at(rails, spec, releases, before) if before else None
    last = _place(releases, made, made.facts.release)
    if last is None:
        return ()
    feeding = Feeding.of_every_source(rails.settings)
    tables = {*spec.tables, *_tables_then(rails, spec, releases[last])}

    def counts(path: str) -> bool:
        return is_part(path, spec.name, tables, feeding)

    return releasers(releases[: last + 1], 0 if since is None else since + 1, counts)


def releasers(releases: Sequence[AcceptedRelease], since: int, counts: Callable[[str], bool]) -> tuple[str, ...]:
    """Who made those of these releases, the oldest first, from the place `since` on that changed what counts. Pure.

    A release from before it was kept who made it names nobody, and is not held against anybody: a home that is older
    than that could approve nothing any more. One without a name after one with a name is UNKNOWN's.
    """
    kept_from = next((place for place, one in enumerate(releases) if one.released_by is not None), len(releases))
    found: set[str] = set()
    for one in releases[max(since, kept_from) :]:
        if one.changed is None or any(map(counts, one.changed)):
            found |= {name for part in (one.released_by or "").split(",") if (name := part.strip())} or {UNKNOWN}
    return tuple(sorted(found))


def is_part(path: str, model: str, tables: Collection[str], feeding: Feeding) -> bool:
    """Whether a version of a model can be another one by a text that a release names as changed.

    `tables`: what the model names of the dbt project; `feeding`: which table stands on which, and on which source.
    A file of dbt that is known as none of those counts: a macro, a test, a table that is gone.
    """
    if path.startswith("models/"):
        return path == f"models/{model}"
    graph, file = feeding.graph, PurePosixPath(path)
    above = frozenset[str]().union(*(graph.upstream(table) for table in tables if table in graph.parents))
    if file.match("dbt/models/staging/*/*"):
        delivered = {source for table, source in feeding.sources.items() if table in above}
        return file.parts[3] in delivered or file.parts[3] not in feeding.sources.values()
    is_of_a_table = file.is_relative_to("dbt/models") or file.is_relative_to("expectations/features")
    return not is_of_a_table or file.stem in above or file.stem not in graph.parents


def _place(releases: Sequence[AcceptedRelease], version: Version, name: str | None) -> int | None:
    """The place of the release, by its folder's name, that was in force when a version was made: the newest of before
    it was recorded. Without a name, or where none is called so, the newest of all of before; None where there is none.
    """
    until = [place for place, one in enumerate(releases)
             if version.recorded_at is None or one.accepted_at <= version.recorded_at]  # fmt: skip
    return max([place for place in until if name and releases[place].digest.startswith(name)] or until, default=None)


def _built_at(rails: Rails, spec: Spec, releases: Sequence[AcceptedRelease], version: Version) -> int | None:
    """The place of the release that all of a champion was made under: its own, or the older one of its features, where
    a text was released between that night and the training."""
    run = rails.ledger.last_features_run(spec.source, version.night + NIGHT)
    places = [_place(releases, version, version.facts.release)]
    if run and run.summary.release:
        places.append(_place(releases, version, run.summary.release))
    known = [place for place in places if place is not None]
    return min(known, default=None)


def _tables_then(rails: Rails, spec: Spec, made_under: AcceptedRelease) -> tuple[str, ...]:
    """What the model named when the challenger was made, where that release is kept."""
    folder = release.kept(rails.settings, made_under.digest)
    path = folder / "models" / spec.name if folder else None
    return load(path).tables if path and (path / "spec.yaml").is_file() else ()
