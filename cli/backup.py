"""`earshot backup`: every index's version and journal, to a folder or an address."""

from __future__ import annotations

from .options import BackupUrl, CacheDir, DataDir, Indexes, Journal, Json, store_of
from .output import console, plain_table, print_json, progress_bars

__all__ = ["backup"]


def backup(
    url: BackupUrl,
    index: Indexes = None,
    journal: Journal = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Copy indexes, with every acknowledged update, to an empty place; a server may go on serving them."""
    from earshot.jobs import backup as run_job
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir, journal=journal)
    with progress_bars() as progress:
        made = run_job(
            url,
            store=store_of(data_dir, cache_dir),
            indexes=index or (),
            journal=settings.journal,
            progress=progress,
        )
    if json:
        print_json(made)
        return
    console.print(f"{len(made.files)} files, {made.bytes / 1e6:.1f} MB, at [bold]{url}[/]", highlight=False)
    rows = [(name, each.version or "none", each.last) for name, each in made.indexes.items()]
    console.print(plain_table(("index", "version", "last update"), rows))
