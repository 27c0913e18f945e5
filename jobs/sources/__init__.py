"""Source files in, documents out: RSS feeds, JSON lines and transcripts, from disk and over HTTP.

Everything above this room sees only `Document`; everything odd about a file stays in here.
"""

from __future__ import annotations

from .document import BadRecord, Document, Passage, document_text
from .fetch import is_url
from .jsonl import FieldMapping, field_mapping
from .read import read_documents

__all__ = [
    "BadRecord",
    "Document",
    "FieldMapping",
    "Passage",
    "document_text",
    "field_mapping",
    "is_url",
    "read_documents",
]
