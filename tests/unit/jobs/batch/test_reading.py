from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from dream_cad.exceptions import FileFormatError, InvalidConfigError, StorageError
from jobs.batch.reading import Record, open_source, read_records


def records(path: Path, content: str | bytes) -> list[Record]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(open_source(str(path))))


def test_lines_of_text_are_prompts(tmp_path: Path) -> None:
    found = records(tmp_path / "p.txt", "\ufeffa chair\r\n\n  \na röd lamp")
    assert [record.values for record in found] == [{"prompt": "a chair"}, {"prompt": "a röd lamp"}]
    assert [record.index for record in found] == [0, 1]


def test_a_line_without_end_is_one_bad_record(tmp_path: Path) -> None:
    found = records(tmp_path / "p.txt", "x" * (3 * 2**20) + "\na chair\n")
    assert [record.problem is None for record in found] == [False, True]
    assert "longer than" in str(found[0].problem)
    assert found[1].values == {"prompt": "a chair"}


def test_csv_fields_follow_the_header(tmp_path: Path) -> None:
    text = 'prompt,seed,options,colour\n"a ""fine"" chair",7,"{""a"": 1}",red\nshort\n\n,,,\n'
    first, short, empty = records(tmp_path / "p.csv", text)
    assert first.values["prompt"] == 'a "fine" chair'
    assert (first.values["seed"], first.values["options"]) == ("7", '{"a": 1}')
    assert "1 fields where the header names 4" in str(short.problem)
    assert set(empty.values.values()) == {None}
    assert open_source(str(tmp_path / "p.csv")).ignored == ("colour",)


def test_broken_json_lines_fail_alone(tmp_path: Path) -> None:
    text = '{"prompt": "a chair", "options": {"a": 1}}\n{broken\n[1, 2]\n{"prompt": 5}\n'
    found = records(tmp_path / "p.jsonl", text)
    assert [record.problem is None for record in found] == [True, False, False, True]
    assert found[3].values == {"prompt": 5}


def write_parquet(path: Path, **columns: Any) -> str:
    parquet.write_table(pa.table(columns), path)
    return str(path)


def test_parquet_is_read_in_order(tmp_path: Path) -> None:
    prompts = [f"chair {number}" for number in range(10_000)]
    uri = write_parquet(tmp_path / "p.parquet", prompt=prompts, seed=range(10_000))
    found = list(read_records(open_source(uri)))
    assert [record.values["prompt"] for record in found] == prompts
    assert found[9_999].values["seed"] == found[9_999].index == 9_999


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"prompt": [1, 2]}, "prompt holds int64"),
        ({"prompt": ["a"], "seed": ["b"]}, "seed holds string"),
        ({"image": [b"png"]}, "image holds binary"),
        ({"prompt": ["a"], "options": [[1]]}, "options holds list"),
    ],
)
def test_columns_of_a_wrong_type_are_refused(
    tmp_path: Path, columns: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidConfigError, match=named):
        open_source(write_parquet(tmp_path / "p.parquet", **columns))


def test_an_input_without_usable_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("text,seed\na chair,1\n")
    with pytest.raises(InvalidConfigError, match=r"no column prompt or image.*text, seed"):
        open_source(str(tmp_path / "p.csv"))


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,prompt\na,b\n")
    with pytest.raises(InvalidConfigError, match="more than once"):
        open_source(str(tmp_path / "p.csv"))


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no file"):
        open_source(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InvalidConfigError, match="is empty"):
        open_source(str(tmp_path / "empty.txt"))
    (tmp_path / "p.xlsx").write_text("x")
    with pytest.raises(FileFormatError, match=r"\.parquet"):
        open_source(str(tmp_path / "p.xlsx"))
    (tmp_path / "p.parquet").write_text("not parquet at all")
    with pytest.raises(FileFormatError, match="not a Parquet file"):
        open_source(str(tmp_path / "p.parquet"))
    with pytest.raises(InvalidConfigError, match="cannot be opened"):
        open_source("ftp://somewhere/p.txt")
