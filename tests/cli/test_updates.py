"""earshot upsert, get and remove over a data folder, as a person would use them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from earshot.cli.lines import datapoint_from, ids_from
from earshot.errors import InvalidArgument
from earshot.index import Store
from tests.servers import EARSHOT, earshot, earshot_json, environment


def test_lines_are_written_read_and_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    Store(data).create("v", {"dimensions": 2})
    lines = [
        {"id": "a", "vector": [1, 0], "metadata": {"x": 1}, "restricts": {"language": ["de"], "year": 2020}},
        {"id": "b", "embedding": [0, 1], "restricts": [{"namespace": "language", "allow": ["fr"]}]},
        {"id": "short", "vector": [1]},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n{nonsense\n"
    done = subprocess.run(
        [EARSHOT, "upsert", "v", "-", "--json"],
        env=environment(data),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["written"] == told["sequence"] == 2
    assert [error["line"] for error in told["errors"]] == [3, 5]
    got = earshot(data, "get", "v", "a")
    assert json.loads(got.stdout) == lines[0]
    (tmp_path / "ids").write_text('b\n{"id": "nobody"}\n')
    assert earshot_json(data, "remove", "v", "--file", str(tmp_path / "ids")) == {"sequence": 4, "count": 1}
    gone = earshot(data, "get", "v", "b")
    assert gone.returncode == 2
    assert "no datapoint has the id 'b'" in gone.stderr


def test_the_keys_of_googles_files_and_api_are_known() -> None:
    line = json.dumps(
        {
            "datapointId": "a",
            "featureVector": [1.0],
            "crowdingTag": {"crowdingAttribute": "t"},
            "embeddingMetadata": {"k": 1},
            "restricts": [{"namespace": "c", "allowList": ["x"], "denyList": ["y"]}],
            "numericRestricts": [{"namespace": "n", "valueInt": "5"}, {"namespace": "f", "value_float": 2}],
        }
    )
    assert datapoint_from(line.encode(), 1) == {
        "id": "a",
        "vector": [1.0],
        "crowding_tag": "t",
        "metadata": {"k": 1},
        "restricts": {"c": {"in": ["x"], "not": ["y"]}, "n": 5, "f": 2.0},
    }
    assert list(ids_from([b"a\n", b"\n", b'{"id": "b"}'])) == ["a", "b"]


@pytest.mark.parametrize("line", ["[1]", '{"id": "a", "vektor": [1]}', '{"restricts": [{"allow": ["x"]}]}'])
def test_what_is_no_datapoint_is_named_by_its_line(line: str) -> None:
    with pytest.raises(InvalidArgument, match="line 7: "):
        datapoint_from(line.encode(), 7)
