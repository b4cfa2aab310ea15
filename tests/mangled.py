"""Texts as they ought not to be: what people, editors and programs make of a YAML file, a request or an argument.

Every text is made from a seed and from a text that holds, so that a case that fails can be made again.
"""

import json
import os
import random
import re
from collections.abc import Callable
from typing import Any

CASES = int(os.environ.get("FUZZ_CASES", "400"))
"""Texts that are tried in all."""
FROM = int(os.environ.get("FUZZ_FROM", "0"))
"""The seed of the first."""


def seeds(part: float) -> range:
    """The cases of a place, which has this part of all; one alone where it is to be made again."""
    if seed := os.environ.get("FUZZ_SEED"):
        chosen = range(int(seed), int(seed) + 1)
    else:
        chosen = range(FROM, FROM + max(1, round(CASES * part)))
    TRIED[:] = [len(chosen)]
    return chosen


TRIED: list[int] = []
"""The number of cases of the test that runs."""


VALUES = [
    "", "~", "null", "true", "no", "0", "-1", "1e309", "-1e309", ".nan", ".inf", "1_000", "0x1F", "0o17", "1:30",
    "2025-02-30",
    "9999-12-31T23:59:59.999999999Z", "0000-00-00", "1" + "0" * 5000, "-0.0", "1e-400", "[]", "{}", "[[]]",
    "{a: {b: [c]}}",
    "[1, two, 3.0, null]", "{? [a, b] : c}", "!!python/object/apply:os.system [id]", "!!binary aGk=",
    "!!set {a, b}", "!x y",
    "!!timestamp '2025-01-01'", "!!int x", "!!float x", "'", '"', "'it''s'", '"\\ud800"', '"\\0"', '"\\u202etxt"',
    "'a\tb'",
    "🚲", "Größe in m²", "\u202e\u2066rtl", "é", "\u0000", "\u0007", "\u2028", "\ufeff", "\x1b[31m", "a" * 100_000,
    "; drop table x", "' or 1=1 --",
    "../../../etc/passwd", "/dev/stdin", "${HOME}", "{{ env_var('HOME') }}", "{% for %}", "%s%n", "$PARAMETER",
    "*nowhere", "&a [*a]", "<<: *a", "|", ">-", "? ", "- ", "---", "...", "%YAML 9.9", "@x", "`x`", "7d", "7 d",
    "-7d", "1e3d",
    "99999999999d", "until x, at most 3d", "until prediction_time, at most 99999999999999w", "s3://",
    "s3://user:secret@x/y",
    "file:///etc/passwd", "postgresql://u:hunter2@h/d", "kinesis://x", "Mars/Phobos", "utf-99", "rot13", "hex",
    "undefined",
]  # fmt: skip
"""What stands where something else should."""
LAUGHS = "\n".join(
    ["laughs:", "  - &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    + [f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12)]
)
_PAIR = re.compile(r"^(\s*(?:- )?)([\w.\"']+):([ \t]*)([^\n]*)$", re.MULTILINE)


def _value(rng: random.Random, text: str) -> str:
    """Another value behind a key."""
    pairs = list(_PAIR.finditer(text))
    if not pairs:
        return text + rng.choice(VALUES)
    pair = rng.choice(pairs)
    return f"{text[: pair.start()]}{pair[1]}{pair[2]}: {rng.choice(VALUES)}{text[pair.end() :]}"


def _inner_value(rng: random.Random, text: str) -> str:
    """Another value somewhere in a line."""
    words = list(re.finditer(r"(?<=: )[^,{}\[\]\n]+|(?<=[\[,] )[^,{}\[\]\n]+|(?<=\[)[^,{}\[\]\n]+", text))
    if not words:
        return text
    word = rng.choice(words)
    return text[: word.start()] + rng.choice(VALUES) + text[word.end() :]


def _swapped(rng: random.Random, text: str) -> str:
    """What stands behind one key behind another, and the other way round."""
    pairs = (
        sorted(rng.sample(pool, 2), key=lambda pair: pair.start())
        if len(pool := list(_PAIR.finditer(text))) > 1
        else []
    )
    if not pairs:
        return text
    first, second = pairs
    return (
        f"{text[: first.start()]}{first[1]}{first[2]}: {second[4]}{text[first.end() : second.start()]}"
        f"{second[1]}{second[2]}: {first[4]}{text[second.end() :]}"
    )


def _key(rng: random.Random, text: str) -> str:
    """Another key, or the same one twice."""
    pairs = list(_PAIR.finditer(text))
    if not pairs:
        return text
    pair = rng.choice(pairs)
    if rng.random() < 0.3:
        return f"{text[: pair.end()]}\n{pair[0]}{text[pair.end() :]}"
    name = rng.choice(
        [pair[2][:-1] or "x", pair[2].upper(), "? ", "<<", "*a", "1", "null", "🚲", "'a b'", "on", "a" * 3000]
    )
    return f"{text[: pair.start()]}{pair[1]}{name}: {pair[4]}{text[pair.end() :]}"


def _line(rng: random.Random, text: str) -> str:
    """A line gone, twice, shifted, cut off, or of something else."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    line = lines[place]
    lines[place : place + 1] = rng.choice(
        [
            [], [line, line], [" " + line], ["\t" + line], [line.lstrip()], [line[: len(line) // 2]], [line + "\r"],
            ["# " + line], [line + " # " + "x" * 50], [line.replace(": ", ":")], [line.replace("  ", "\t")],
            ["- " + line],
            [rng.choice(VALUES)], [line + "\u2028" + line], [line.replace("{", "[")], [line + ": x: y"],
        ]
    )  # fmt: skip
    return "\n".join(lines)


def _letters(rng: random.Random, text: str) -> str:
    """A few letters that are others."""
    letters = list(text)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(letters) + 1)
        letters[place : place + rng.randint(0, 3)] = rng.choice(
            [
                "",
                "\0",
                "\t",
                "\n",
                "'",
                '"',
                ":",
                "{",
                "}",
                "[",
                "]",
                "-",
                "&a ",
                "*a ",
                "!",
                "%",
                "\ufeff",
                "\u202e",
                "🚲",
                "\x7f",
                "\x85",
            ]
        )
    return "".join(letters)


def _whole(rng: random.Random, text: str) -> str:
    """Something else altogether, or around it."""
    return rng.choice(
        [
            "", " ", "\n\n", "---\n---\n", f"---\n{text}\n---\n{text}", f"\ufeff{text}", f"{text}\n{LAUGHS}\n",
            f"{LAUGHS}\n",
            text.replace("\n", "\r\n"), text.replace("\n", "\r"), text[: rng.randrange(len(text) + 1)], text[::-1],
            "[" * rng.choice([3, 60, 5000]), "{a: " * 300, "- " * 4000 + "x", f"x: {'[' * 40}{']' * 40}\n{text}",
            json.dumps({"a": text}), text.upper(), f"- {text}", f"x: &x {{a: *x}}\n{text}", "&a [*a]", "42",
            "'text'", "null",
            "? a\n? b\n", text + "\n" + "y: 1\n" * 3, "a: b\n" * 5000,
            text.encode("utf-8", "replace").decode("latin-1"),
            "%TAG ! tag:x,2000:\n---\n!y z",
        ]
    )  # fmt: skip


MANGLE: list[Callable[[random.Random, str], str]] = [
    _value, _value, _value, _inner_value, _inner_value, _inner_value, _swapped, _key, _key, _line, _line, _letters,
    _whole,
]  # fmt: skip


def mangled(rng: random.Random, text: str) -> bytes:
    """The text, mangled once, or up to three times; now and then in another encoding."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        text = rng.choice(MANGLE)(rng, text)
    encoding = rng.choice(["utf-8"] * 18 + ["utf-16", "latin-1"])
    return text.encode(encoding, "surrogatepass" if encoding == "utf-8" else "replace")


def json_value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON may hold."""
    kinds = [
        lambda: None, lambda: rng.random() < 0.5,
        lambda: rng.choice([0, -1, 2**53 + 1, 2**70, -(10**400), 1e308, 5e-324, 0.1]),
        lambda: rng.choice(VALUES), lambda: rng.choice(["", "T1", "\ud800", "x" * 2000, "\0", "🚲"]),
    ]  # fmt: skip
    if depth < 4:
        kinds += [
            lambda: [json_value(rng, depth + 1) for _ in range(rng.randint(0, 4))],
            lambda: {
                str(rng.choice([*VALUES[:20], "rows", "features"])): json_value(rng, depth + 1)
                for _ in range(rng.randint(0, 4))
            },
        ]
    return rng.choice(kinds)()
