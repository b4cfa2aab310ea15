"""Several files of one header are one export; others are refused with a sentence."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltyard.errors import BadInput
from tiltyard.scaffold import afar, sample
from tiltyard.settings import Settings


def rows(paths: list[Path]) -> list[tuple[object, ...]]:
    with afar.joined(paths) as brought, sample.opened(brought.path) as opened:
        return opened.connection.execute("select * exclude (_line) from sample order by _line").fetchall()


def files(folder: Path, *texts: str | bytes, ending: str = "csv") -> list[Path]:
    paths = [folder / f"m{number}.{ending}" for number in range(len(texts))]
    for path, content in zip(paths, texts, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths


def test_files_of_one_header_are_one_export(tmp_path: Path) -> None:
    texts = ["id,what\n1,a\n2,b", b"\xef\xbb\xbfid,what\n3,c\n", "id,what\n"]
    assert rows(files(tmp_path, *texts)) == [(1, "a"), (2, "b"), (3, "c")]
    assert rows(files(tmp_path, '{"id": 1}\n', '{"id": 2, "x": "y"}', ending="jsonl")) == [(1, None), (2, "y")]
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for number, path in enumerate(parts):
        pq.write_table(pa.table({"id": [number]}), path)
    assert rows(parts) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["id,what\n1,a\n", "id,what,more\n1,a,b\n"],
            "m1.csv has another header than .*m0.csv: 'id,what,more', and not",
        ),
        (["id\n1\n", '{"id": 1}\n'], "m0.csv, m1.csv are of several kinds, CSV and JSON"),
        (["id\n1\n", ""], "m1.csv is empty; leave it out"),
        (["id\n1\n", "id\n1\n".encode("utf-16")], "is packed, or UTF-16"),
        (["id\n1\n", "id\r\n1\r\n"], "m1.csv ends its lines otherwise"),
        (['{"id": 1}\n', '[{"id": 1}]\n'], "m1.csv is a list"),
    ],
)
def test_files_that_are_not_of_one_export_are_refused(tmp_path: Path, texts: list[str | bytes], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        rows(files(tmp_path, *texts))


def test_a_folder_is_refused_with_what_to_say(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder; name the files in it"), afar.brought(Settings(), str(tmp_path)):
        pass


def test_objects_in_json_are_told(tmp_path: Path) -> None:
    line = '{"id": 1, "sender": {"id": "a"}, "sizes": [1, 2], "plain": "x"}\n'
    with sample.opened(*files(tmp_path, line, ending="jsonl")) as opened:
        assert opened.notes[0].startswith("sender, sizes hold objects or lists, each of which is one text here")
