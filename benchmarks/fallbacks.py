"""What a fall costs: every reason for which a request falls to another tier, beside the healthy path of the same run.

`tiltyard serve` as its own process on real models: champions whose ONNX graph gives NaN, gives two, raises, returns
a row too many, or works for 50 ms when a feature says so (servers/faulty.py). One connection sends healthy rows and
failing ones in turn to the same model, two to one, so that both see the same machine and the breaker stays closed;
where it has to be open, the champion raises every time. For the store a Redis is killed, and another one frozen.

Prints p50 and p99 of both (`share`: of the falling rows, how many fell for this reason), and what the fall adds to p99
(median of the rounds, with the least and the largest). Then a champion that hangs for 50 ms against a deadline of 5 ms,
before its breaker opens and after. The parts of a fall in process come first.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import faulty, load, process, stores, yard

ROUNDS, FALLS = 5, 700
ADDED_MS, DEADLINE_MS, OVER_MS, AFTER_MS = 1.0, 5, 2.0, 2.0
HANG_MS, HANGS = 50, 150


@dataclass
class Case:
    """A reason, the rows that bring it about, and the healthy rows that they are held against."""

    reason: str
    healthy: list[str]
    falls: list[str]
    port: int
    falls_port: int | None = None
    falls_follow: int = 2
    """Healthy rows before each falling one."""
    rounds: list[dict[str, float]] = field(default_factory=list)

    def measure(self, falls: int) -> None:
        order = ["healthy"] * self.falls_follow + ["falls"]
        result = load.run(
            self.port, {"healthy": self.healthy, "falls": self.falls}, order=order, count=falls * len(order),
            ports={"falls": self.falls_port or self.port},
        )  # fmt: skip
        if result.failed:
            raise RuntimeError(f"{self.reason}: {result.failed} answers were no 2xx: {result.example}")
        self.rounds.append(
            {
                "healthy p50": result.percentile("healthy", 50, "in_service"),
                "healthy p99": result.percentile("healthy", 99, "in_service"),
                "p50": result.percentile("falls", 50, self.reason),
                "p99": result.percentile("falls", 99, self.reason),
                "share": result.reasons_of("falls").get(self.reason, 0) / falls,
            }
        )

    def figure(self, name: str) -> float:
        return statistics.median(entry[name] for entry in self.rounds)

    def added(self) -> list[float]:
        return [entry["p99"] - entry["healthy p99"] for entry in self.rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(process.machine())
    trained = yard.train()
    in_process(trained)
    names = [f"fault_{name}" for name in faulty.CODES if name != "late"]
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as name, ExitStack() as stack:
        mine = stack.enter_context(yard.opened(Path(name), trained, [*names, "sound", "broken", "nobody"]))
        for model in ("hangs_now_and_then", "hangs"):
            mine.model(model, deadline_ms=DEADLINE_MS)
        for model in ("sound", *names, "broken", "hangs_now_and_then", "hangs"):
            mine.promote(model, "sound")
            mine.promote(model, "sound" if model == "sound" else "faulty")
        mine.fill()
        server = stack.enter_context(mine.serving(TILTYARD_SERVE_DELIVER_S="0"))
        cases = embedded(mine, server.port, names) + stores_fail(stack, mine)
        for case in cases:
            case.measure(100)  # to warm, and to open the breaker that is to be open
            case.rounds.clear()
        for _ in range(options.rounds):
            for case in cases:
                case.measure(FALLS)
        reached = [tell(cases), *hanging(mine, server.port, options.rounds)]
        print(process.machine())
    sys.exit(not all(reached))


def embedded(mine: yard.Yard, port: int, faults: list[str]) -> list[Case]:
    """The reasons that one service can have with its embedded store."""
    cases = []
    for model in faults:
        reason = model.removeprefix("fault_")
        falls = [mine.ask(model, yard.looked_up(number, faulty.CODES[reason])) for number in range(200)]
        cases.append(Case(f"champion_{reason}", rows(mine, model), falls, port))
    broken = [mine.ask("broken", yard.looked_up(number, faulty.RAISES)) for number in range(200)]
    sound = rows(mine, "sound")
    return [
        *cases,
        Case("champion_breaker_open", sound, broken, port),
        Case("champion_features_missing", sound, [mine.ask("sound", {"entity_id": yard.UNKNOWN})], port),
        Case("champion_features_stale", sound, [mine.ask("sound", {"entity_id": yard.STALE})], port),
        Case("no_champion", sound, rows(mine, "nobody"), port),
    ]


def stores_fail(stack: ExitStack, mine: yard.Yard) -> list[Case]:
    """Three services on Redis: one that answers, one that was killed, one that stands still with its socket open."""
    well, killed, frozen = (stack.enter_context(stores.redis()) for _ in range(3))
    ports = {}
    for store in (well, killed, frozen):
        mine.fill(online_url=store.url)
        ports[store.url] = stack.enter_context(
            mine.serving(TILTYARD_ONLINE_URL=store.url, TILTYARD_SERVE_DELIVER_S="0")
        ).port
    killed.kill()
    frozen.freeze()
    healthy, port = rows(mine, "sound"), ports[well.url]
    # other entities than anybody asked for before: of those the service still knows the values
    unseen = [mine.ask("sound", {"entity_id": yard.customer(number)}) for number in range(500, 900)]
    reason = "champion_store_unavailable"
    return [
        Case(reason, healthy, unseen, port, ports[killed.url]),
        Case(reason, healthy, unseen, port, ports[frozen.url]),
    ]


def rows(mine: yard.Yard, model: str) -> list[str]:
    return [mine.ask(model, yard.looked_up(number)) for number in range(200)]


def hanging(mine: yard.Yard, port: int, rounds: int) -> list[bool]:
    """A champion that takes 50 ms: now and then, so that the breaker stays closed, and always, so that it opens.

    Returns whether each of the two limits is reached.
    """
    healthy = rows(mine, "hangs_now_and_then")
    falls = [mine.ask("hangs_now_and_then", yard.looked_up(number, faulty.HANGS)) for number in range(200)]
    always = [mine.ask("hangs", yard.looked_up(number, faulty.HANGS)) for number in range(200)]
    before: list[float] = []
    for _ in range(rounds):
        result = load.run(
            port, {"healthy": healthy, "falls": falls}, order=["healthy", "healthy", "falls"], count=3 * HANGS,
            pause_ms={"falls": 2 * HANG_MS},
        )  # fmt: skip
        before.append(result.percentile("falls", 99, "champion_late"))
    print(f"\nA champion hanging {HANG_MS} ms against a deadline of {DEADLINE_MS} ms")
    print(f"  breaker closed: {result.reasons_of('falls')}")
    reached = [verdict("  p99 before the breaker opens, ms", before, DEADLINE_MS + OVER_MS)]
    after = []
    for _ in range(rounds):
        result = load.run(port, {"falls": always}, count=2_000)
        after.append(result.percentile("falls", 99, "champion_breaker_open"))
    print(f"  breaker open: {result.reasons_of('falls')}")
    return [*reached, verdict("  p99 after it has opened, ms", after, AFTER_MS)]


def in_process(trained: yard.Trained) -> None:
    """The parts of a fall, one row, on this thread."""
    from tiltyard.serve import fallback
    from tiltyard.serve.breaker import Breaker
    from tiltyard.train import scorer

    version = scorer.Scorer.from_files("bench", 1, trained.files)
    row = trained.matrix[:1]
    tiers: tuple[Any, ...] = ("champion", "previous", "light")
    down: dict[Any, Any] = {"champion": "raised", "previous": "breaker_open", "light": "scored"}
    up: dict[Any, Any] = {"champion": "scored"}
    breaker = Breaker()
    parts: dict[str, Callable[[], Any]] = {
        "the heavy model, ONNX": lambda: version.score_matrix(row),
        "the light twin, ONNX": lambda: version.score_light_matrix(row),
        "choosing: the champion answers": lambda: fallback.choose(tiers, up),
        "choosing: two tiers fell": lambda: fallback.choose(tiers, down),
        "the breaker, asked and told": lambda: (breaker.allows(1.0), breaker.succeeded()),
    }
    print("In process, µs, median of 2,000")
    for name, part in parts.items():
        times_ns = []
        for _ in range(2_000):
            begun = time.perf_counter_ns()
            part()
            times_ns.append(time.perf_counter_ns() - begun)
        print(f"  {name:36}{statistics.median(times_ns) / 1e3:8.1f}")


def tell(cases: list[Case]) -> bool:
    print(f"\n{'ms':36}{'healthy p50':>12}{'p99':>8}{'fallen p50':>12}{'p99':>8}{'added to p99':>26}   share")
    missed = []
    for case in cases:
        added = case.added()
        spread = f"{statistics.median(added):+.2f} ({min(added):+.2f} to {max(added):+.2f})"
        where = "" if case.falls_port is None else (", killed" if case is cases[-2] else ", frozen")
        print(
            f"{case.reason.removeprefix('champion_') + where:36}{case.figure('healthy p50'):12.3f}"
            f"{case.figure('healthy p99'):8.3f}{case.figure('p50'):12.3f}{case.figure('p99'):8.3f}{spread:>26}"
            f"{case.figure('share'):8.0%}"
        )
        if statistics.median(added) >= ADDED_MS:
            missed.append(case.reason + where)
    print(f"Under {ADDED_MS:g} ms added at p99: {'missed by ' + ', '.join(missed) if missed else 'every reason'}")
    return not missed


def verdict(what: str, values: list[float], limit: float) -> bool:
    value = statistics.median(values)
    spread = f"({min(values):.2f} to {max(values):.2f})"
    print(f"{what}: {value:.2f} {spread}, wanted at most {limit:g}: {'reached' if value <= limit else 'missed'}")
    return value <= limit


if __name__ == "__main__":
    main()
