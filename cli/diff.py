"""`earshot diff`: what is different between two versions."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Json, store_of
from .output import console, plain_table, print_json

__all__ = ["diff"]


def diff(
    index: IndexName,
    before: Annotated[str, typer.Argument(help="A version, such as v000006.", show_default=False)],
    after: Annotated[str, typer.Argument(help="A version to hold against it.", show_default=False)],
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Compare two versions: datapoints added and removed, recall, size, parameters, model, sources."""
    found = store_of(data_dir, cache_dir).diff(index, before, after)
    if json:
        print_json(found)
        return
    console.print(f"{found.added} added, {found.removed} removed, {found.kept} kept", highlight=False)
    recall = ("tuned recall", f"{found.recall_before.value:.4f}", f"{found.recall_after.value:.4f}")
    size = ("MB", f"{found.bytes_before / 1e6:.1f}", f"{found.bytes_after / 1e6:.1f}")
    changes = [(change.name, _shown(change.before), _shown(change.after)) for change in found.changes]
    console.print(plain_table(("", found.before, found.after), [recall, size, *changes]))


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
