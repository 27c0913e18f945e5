"""`earshot journal`: what the log of updates holds."""

from __future__ import annotations

from .options import CacheDir, DataDir, IndexName, Journal, Json, store_of
from .output import console, print_json

__all__ = ["journal"]


def journal(
    index: IndexName,
    journal: Journal = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Show what an index's journal holds; a server may be writing to it."""
    from earshot.jobs import journal_report
    from earshot.server import load_settings

    settings = load_settings(data_dir=data_dir, cache_dir=cache_dir, journal=journal)
    report = journal_report(store_of(data_dir, cache_dir), index, settings.journal)
    if json:
        print_json(report)
        return
    if not report.address:
        console.print(f"{index} has no journal: nothing was ever updated", highlight=False)
        return
    rows = [
        ("journal", report.address),
        (
            "entries",
            f"{report.entries:,}" + (f" ({report.first} to {report.last})" if report.entries else ""),
        ),
        ("last update", report.last),
        ("in version", f"{report.version or 'none'}, up to {report.version_sequence}"),
        ("waiting for compaction", f"{report.waiting:,}"),
        ("size", f"{report.bytes / 1e6:.2f} MB"),
        ("oldest entry", report.oldest or "-"),
    ]
    for label, value in rows:
        console.print(f"{label:24}{value}", highlight=False, soft_wrap=True)
