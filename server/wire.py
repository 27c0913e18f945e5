"""The few pieces of protobuf's wire format with which ready-made bytes are put together."""

from __future__ import annotations

__all__ = ["FIXED64", "LENGTH_DELIMITED", "field", "tag", "varint"]

LENGTH_DELIMITED, FIXED64 = 2, 1


def tag(number: int, wire_type: int) -> bytes:
    """What stands before a field; `number` is 1 to 15."""
    return bytes([number << 3 | wire_type])


def varint(value: int) -> bytes:
    """A whole number from 0, seven bits a byte."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, content: bytes) -> bytes:
    """A message, a string or bytes as a field."""
    return tag(number, LENGTH_DELIMITED) + varint(len(content)) + content
