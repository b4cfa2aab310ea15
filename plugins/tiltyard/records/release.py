"""What of the specs, suites and the dbt project is in force, and what was refused."""

from dataclasses import dataclass

from tiltyard.records.base import Instant, Record


@dataclass(frozen=True, kw_only=True)
class RefusedText(Record):
    """A file, or a folder of files, that was not accepted as it lies in the checkout."""

    path: str
    """The file, or the folder, like `models/churn`."""
    reason: str
    """What is wrong with it, as a sentence, with its line where there is one."""
    stands: bool
    """Whether an older text of it is in force meanwhile; false: it is not there yet."""

    def __str__(self) -> str:
        instead = "its last accepted text stays in force" if self.stands else "it is not there yet"
        return f"{self.path} is refused, {instead}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class AcceptedRelease(Record):
    """A release: specs, suites and dbt project that were accepted together."""

    digest: str
    """SHA-256 of its texts with their paths, in hex; its first digits name its folder."""
    checkout: str
    """SHA-256 of the texts of the checkout that it was made from; another one than `digest` where some were refused."""
    accepted_at: Instant
    """When it was put in force."""
    files: int
    """Number of its files."""
    refused: tuple[RefusedText, ...] = ()
    """What of the checkout is not in it."""
    released_by: str | None = None
    """Who put it in force, as a text, several with a comma between them; `airflow` for a night that nobody has started.
    None of a preview, and of releases from before this was kept."""
    changed: tuple[str, ...] | None = None
    """What is another text in it than in the release before, or is new, or gone: files, and of models their folder,
    like `models/churn`. None where `released_by` is."""

    @property
    def name(self) -> str:
        """By what people call it."""
        return self.digest[:8]

    def refusals(self, model: str) -> tuple[RefusedText, ...]:
        """Those of a model's own folder."""
        return tuple(text for text in self.refused if text.path == f"models/{model}")
