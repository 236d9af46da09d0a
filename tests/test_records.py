import json
import math

import pytest

from manymax._records import append_record, plain, read_records, write_whole


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    assert read_records(path) == []
    for number in range(3):
        append_record(path, {"number": number, "text": "é\n"})
    assert read_records(path) == [{"number": number, "text": "é\n"} for number in range(3)]
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize("rest", ['{"number": 1, "te', '{"number"', "1", "\n\n"])
def test_a_line_cut_off_spoils_no_other(tmp_path, rest):
    path = tmp_path / "results.jsonl"
    append_record(path, {"number": 0})
    with path.open("a") as file:
        file.write(rest)
    append_record(path, {"number": 2})
    assert read_records(path) == [{"number": 0}, {"number": 2}]


def test_numbers_that_json_has_no_word_for(tmp_path):
    append_record(tmp_path / "x", {"values": [math.inf, (-math.inf, math.nan)], "more": {"a": 1.5, "b": None}})
    (line,) = (tmp_path / "x").read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert record == {"values": ["inf", ["-inf", "nan"]], "more": {"a": 1.5, "b": None}}
    assert float(record["values"][0]) == math.inf
    assert plain("nan") == "nan"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "folder" / "page.md"
    write_whole(path, "old")
    write_whole(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert [file.name for file in path.parent.iterdir()] == ["page.md"]
