"""Generates the Python stubs beside the .proto files: `python proto/generate.py [FOLDER]`.

A test generates into a folder of its own and compares, so stubs and protos cannot part.
"""

from __future__ import annotations

import importlib.resources
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> list[Path]:
    """Writes `*_pb2.py`, `*_pb2_grpc.py` and their type stubs under `out`; returns the files.

    Raises RuntimeError when protoc refuses a file; protoc has said why on standard error.
    """
    files = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    google_api = importlib.resources.files("google.api").joinpath("annotations.proto")
    includes = [PROTO_ROOT, Path(str(well_known)), Path(str(google_api)).parent.parent.parent]
    with tempfile.TemporaryDirectory() as renamed:
        # The package carries the file under a name that no import has.
        operations = Path(renamed, "google/longrunning/operations.proto")
        operations.parent.mkdir(parents=True)
        source = importlib.resources.files("google.longrunning").joinpath("operations_proto.proto")
        operations.write_bytes(source.read_bytes())
        _run([*includes, Path(renamed)], files, out)
    return sorted(path for path in out.rglob("*_pb2*") if path.is_file())


def _run(includes: list[Path], files: list[str], out: Path) -> None:
    plugins = [Path(sys.executable).parent / name for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    status = protoc.main(
        [
            "protoc",
            *(f"-I{folder}" for folder in includes),
            *(f"--plugin={plugin.name}={plugin}" for plugin in plugins),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *files,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc exited with {status}")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO_ROOT
    if shutil.which("protoc-gen-mypy", path=str(Path(sys.executable).parent)) is None:
        sys.exit("mypy-protobuf is missing: run `make test` once, it installs it")
    for path in generate(target):
        print(path.relative_to(target))  # noqa: T201
