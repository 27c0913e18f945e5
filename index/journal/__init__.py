"""The durable, ordered log of upserts and removes since a version."""

from .base import Journal, JournalStatus
from .codec import encode_puts
from .entry import UNSET, Entry, Patch, Put, Remove
from .group import Call
from .open import JOURNAL_FILE, drop_journal, is_shared, open_journal
from .sqlite import turns_of

__all__ = [
    "JOURNAL_FILE",
    "UNSET",
    "Call",
    "Entry",
    "Journal",
    "JournalStatus",
    "Patch",
    "Put",
    "Remove",
    "drop_journal",
    "encode_puts",
    "is_shared",
    "open_journal",
    "turns_of",
]
