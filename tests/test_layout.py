"""The house keeps its shape: names, layers, generated stubs, no addresses where none belong."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_root_folders_are_never_imported_under_their_own_names() -> None:
    code = (
        "import sys, earshot.cli.main, earshot.server.local, earshot.server.transports, earshot.client\n"
        "taken = {'index', 'server', 'client', 'jobs', 'cli', 'embedding', 'errors'} & set(sys.modules)\n"
        "sys.exit(', '.join(taken) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_every_package_folder_is_in_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = setuptools["package-dir"]
    listed = set(setuptools["packages"])
    for package, folder in folders.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            assert ".".join((package, *inner)) in listed, init


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pinned generator runs on Python 3.11")
def test_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*_pb2*")}
    kept = {
        path.relative_to(ROOT / "proto"): path.read_text()
        for path in (ROOT / "proto").rglob("*_pb2*")
        if path.suffix in {".py", ".pyi"}
    }
    assert fresh == kept, "run `make proto`"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_pin_every_package_by_hash_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


def test_the_default_install_pulls_no_torch_and_no_tensorflow() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert not re.search(r"^(torch|tensorflow|sentence-transformers)\b", text, re.MULTILINE)


def test_of_the_server_what_is_asked_for_is_loaded() -> None:
    code = (
        "import sys, earshot.server as server\n"
        "server.load_settings\n"
        "assert not {'fastapi', 'grpc', 'numpy'} & set(sys.modules)\n"
        "assert all(hasattr(server, name) for name in server.__all__)\n"
        "assert not hasattr(server, 'something_else')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
