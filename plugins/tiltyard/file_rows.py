"""SQL of the rows of files. No other module calls a reader of DuckDB's.

A reader may add columns of its own making and guess at what it finds: a column for every folder called `env=prod`, one
called `filename`, a number for an identifier that looks like one. What is read here has the columns of the file and no
others, and of a text every value is text; what type it is of, `casts` says.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tiltyard.lake import quoted, text

FILE = "_tiltyard_file"
"""The column that says which file a row is of, where that is asked for: a name that no delivery has."""
_NOTHING_ADDED = "hive_partitioning = false, hive_types_autocast = false, union_by_name = false"
_ESCAPED = str.maketrans({letter: f"[{letter}]" for letter in "[*?"})


def parquet(*paths: Path, with_file: bool = False, with_place: bool = False) -> str:
    """The rows of Parquet files of one shape: their own columns, then FILE if asked for, then `file_row_number`, from
    0 in each file; which fails where a file has a column of that name."""
    asked = f", filename = {text(FILE)}" if with_file else ""
    asked += ", file_row_number = true" if with_place else ""
    return f"read_parquet({_listed(paths)}, {_NOTHING_ADDED}{asked})"


def of_the_lake(place: str, key: str | None, *, with_place: bool = False) -> str:
    """The rows of one of the lake's own files, wherever it lies, and `file_row_number` if asked for. `key`: in Base64;
    None of a plain one."""
    config = "" if key is None else f", encryption_config = {{footer_key_value: from_base64({text(key)})}}"
    asked = ", file_row_number = true" if with_place else ""
    return f"read_parquet({text(place.translate(_ESCAPED))}, {_NOTHING_ADDED}{asked}{config})"


def content(place: str) -> str:
    """The bytes of a file, wherever it lies: one row, column `content`."""
    return f"(select content from read_blob({text(place.translate(_ESCAPED))}))"


def parquet_names(path: Path) -> str:
    """The names of a Parquet file's columns and their parts, as they are written there: column `name`."""
    return f"(select name from parquet_schema({_listed([path])}))"


def csv(
    *paths: Path, columns: Sequence[str], delimiter: str, missing: Sequence[str] = (), with_file: bool = False
) -> str:
    """The rows of text files in UTF-8, each below a header of one line: `columns`, in the order of the files, all text.

    `missing`: spellings that are NULL, beside the empty field. A line with more or fewer fields fails.
    """
    named = ", ".join(f"{text(name)}: 'VARCHAR'" for name in columns)
    spelled = ", ".join(text(value) for value in ("", *missing))
    asked = f", filename = {text(FILE)}" if with_file else ""
    return (
        f"read_csv({_listed(paths)}, columns = {{{named}}}, auto_detect = false, header = true, skip = 0, "
        f"delim = {text(delimiter)}, quote = '\"', escape = '\"', comment = '', nullstr = [{spelled}], "
        f"null_padding = false, ignore_errors = false, {_NOTHING_ADDED}{asked})"
    )


def csv_of_some_kind(
    path: Path, *, encoding: str = "utf-8", packed: str | None = None, rows: int = -1, with_header: bool = True
) -> str:
    """The rows of a text file whose delimiter and quotes nobody has said: DuckDB finds them out of the first `rows`,
    or of all; every value is text. `packed`: how, whatever its name says; None: it is not.

    Without a header its first line is a row like the others, and lines that do not fit are passed over.
    """
    lines = "header = true" if with_header else "header = false, ignore_errors = true"
    return (
        f"read_csv({_listed([path])}, {lines}, all_varchar = true, comment = '', null_padding = false, "
        f"sample_size = {rows}, encoding = {text(encoding)}, compression = {text(packed or 'none')}, {_NOTHING_ADDED})"
    )


def dialect(path: Path) -> str:
    """How a text file in UTF-8 seems to be written, of all its lines: one row, columns `Delimiter`, `HasHeader`."""
    return f"(select Delimiter, HasHeader from sniff_csv({_literal(path)}, sample_size = -1, comment = ''))"


def json_lines(path: Path, columns: Sequence[str] | None = None) -> str:
    """The rows of a file of JSON objects: `columns`, all text, or all there are with DuckDB's guess at their types."""
    if columns is None:
        return f"read_json({_listed([path])}, sample_size = -1, {_NOTHING_ADDED})"
    named = ", ".join(f"{text(name)}: 'VARCHAR'" for name in columns)
    return f"read_json({_listed([path])}, columns = {{{named}}}, {_NOTHING_ADDED})"


def json_keys(path: Path) -> str:
    """The keys that the objects of a file of JSON have, each once: column `key`."""
    return f"(select distinct unnest(json_keys(json)) as key from read_json_objects({_listed([path])}))"


def is_json(head: str) -> bool:
    """Whether a text that begins so holds JSON objects: one behind the other, or a list of them."""
    return re.match(r"[\ufeff \r\n\t]*(\[\s*)?[{]", head) is not None


def json_of(pattern: str, columns: dict[str, str]) -> str:
    """The rows of JSON files that we have written ourselves, wherever they lie: column → DuckDB type."""
    named = ", ".join(f"{quoted(name)}: {text(kind)}" for name, kind in columns.items())
    return f"read_json({text(pattern)}, columns = {{{named}}}, {_NOTHING_ADDED})"


def _listed(paths: Sequence[Path]) -> str:
    return "[" + ", ".join(map(_literal, paths)) + "]"


def _literal(path: Path) -> str:
    """A path, in which a bracket or a star in a folder's name is no pattern."""
    return text(str(path).translate(_ESCAPED))
