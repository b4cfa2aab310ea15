"""The versions of one model over the past nights, each made once, whichever policy asks first."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date, datetime

from tiltyard import clock
from tiltyard.clock import night_closing
from tiltyard.rails import Rails
from tiltyard.rewind import past
from tiltyard.rewind.past import Floats, Kept, PastVersion, Workers
from tiltyard.spec import Spec


@dataclass
class PastTrainings:
    """The versions of one model, each made once, whoever asks first."""

    spec: Spec
    """The model."""
    workers: Workers
    """Who trains."""
    rails: Rails
    """The rails, for where versions are kept."""
    snapshot: int
    """The lake's snapshot that frames are read from."""
    rows: str
    """The name under which the rows are kept."""
    versions: dict[date, PastVersion | None] = field(default_factory=dict)
    """Night → its version; None where its frame could not carry one."""
    lines: dict[date, Floats | None] = field(default_factory=dict)
    """Night → the scores of a training that nobody but a line of losses needs; None where there is none."""
    _trainings: dict[date, "Future[Kept]"] = field(default_factory=dict)
    _scorings: dict[date, "Future[Kept]"] = field(default_factory=dict)
    _matured: dict[date, int] = field(default_factory=dict)

    def ask(self, night: date) -> None:
        """Begin the training of a night; nobody waits for it yet."""
        if night not in self._trainings:
            self._trainings[night] = self.workers.train(self.spec, clock.midnight(night), self.snapshot, self.rows)

    def get(self, night: date) -> PastVersion | None:
        """The version of a night; None where its frame could not carry one."""
        self.ask(night)
        if night not in self.versions:
            training = self._trainings[night].result()
            self.versions[night] = (
                past.version(self.rails.settings, training.inputs, self.rows) if training.inputs else None
            )
        return self.versions[night]

    def ask_line(self, night: date) -> None:
        """Begin a training of which nothing but the scores is wanted."""
        if night not in self._scorings:
            self._scorings[night] = self.workers.line(self.spec, clock.midnight(night), self.snapshot, self.rows)

    def line(self, night: date) -> Floats | None:
        """(rows,) the scores of the version of a night; None where its frame could not carry one."""
        self.ask_line(night)
        if night not in self.lines:
            self.lines[night] = past.line(self.rails.settings, self._scorings[night].result(), self.rows)
        return self.lines[night]

    def matured(self, night: date) -> int:
        """How many matured labels a training frame of the night would hold."""
        if night not in self._matured:
            self._matured[night] = self.workers.matured(self.spec, clock.midnight(night), self.snapshot).result()
        return self._matured[night]

    def scores(self) -> dict[date, Floats]:
        """Night → the scores of the version that was trained on it, of all that were asked for; waits for the lines."""
        lines = {night: self.line(night) for night in list(self._scorings)}
        lines |= {night: version.scores for night, version in self.versions.items() if version is not None}
        return {night: values for night, values in lines.items() if values is not None}

    def first_night(self, nights: Sequence[datetime]) -> date | None:
        """The first night on which a model without any version would train."""
        enough = max(self.spec.gate.min_matured, 1)
        return next((night_closing(as_of) for as_of in nights if self.matured(night_closing(as_of)) >= enough), None)
