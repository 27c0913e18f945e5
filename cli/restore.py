"""`earshot restore`: indexes from a backup."""

from __future__ import annotations

from .options import BackupUrl, CacheDir, DataDir, Indexes, Journal, Json, store_of
from .output import console, plain_table, print_json, progress_bars

__all__ = ["restore"]


def restore(
    url: BackupUrl,
    index: Indexes = None,
    journal: Journal = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Make indexes of a backup again, each file checked. Indexes that are there are never touched."""
    from earshot.jobs import restore as run_job
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
    rows = [(name, each.version or "none", each.last) for name, each in made.indexes.items()]
    console.print(plain_table(("index", "version", "last update"), rows))
