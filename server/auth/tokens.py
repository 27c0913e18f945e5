"""The file of tokens: only digests lie in it, and it is replaced whole, for its owner's eyes only.

SHA-256 and no slow hash such as bcrypt: those make guessing a chosen password expensive. A token is 256
random bits, which nobody guesses at any speed, and it is checked at every request.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import math
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from filelock import FileLock

from earshot.errors import (
    DataLoss,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)

__all__ = ["EVERY_INDEX", "Grant", "NewToken", "Scope", "Token", "TokenFile", "digest_of"]

PREFIX = "earshot_"  # so that scanners for leaked secrets know what they found
SECRET_BYTES = 32
ID_DIGITS = 12
EVERY_INDEX = "*"
LOCK_SECONDS = 10.0


class Scope(enum.IntEnum):
    """What may be done; each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scope on one index, or on every index, also those to come."""

    scope: Scope
    index: str = EVERY_INDEX

    @classmethod
    def parse(cls, text: str) -> Grant:
        """`read`, `write:podcasts`, `admin:*`. Raises InvalidArgument."""
        name, colon, index = text.partition(":")
        if name.upper() not in Scope.__members__ or (colon and not index):
            raise InvalidArgument(
                f"scope {text!r} is none: write read, write or admin, and for one index read:podcasts",
                field="scope",
            )
        return cls(Scope[name.upper()], index or EVERY_INDEX)

    def __str__(self) -> str:
        return f"{self.scope.name.lower()}:{self.index}"


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One token, without its secret. `id` is the start of `sha256`, in hex."""

    id: str
    sha256: str
    grants: list[Grant]
    created: datetime
    note: str = ""
    expires: datetime | None = None
    requests_per_second: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.requests_per_second is not None and not 0 < self.requests_per_second < math.inf:
            raise ValueError(
                f"requests_per_second is {self.requests_per_second}; it must be more than 0 and finite"
            )
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"burst is {self.burst}; it must be 1 or more")
        if (
            not self.sha256.startswith(self.id)
            or len(bytes.fromhex(self.sha256)) != hashlib.sha256().digest_size
        ):
            raise ValueError(f"sha256 of the token {self.id} is not one")


class NewToken(NamedTuple):
    """A token that was just made; the secret is nowhere else."""

    secret: str
    token: Token


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: list[Token]
    format: int = 1


class TokenFile:
    """Reads and changes the tokens at `path`. Changes by several processes come one after another."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> tuple[int, int, int] | None:
        """Something that is another one after every change; None while there is no file.

        Raises PermissionDenied where one cannot even see whether there is.
        """
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refused("read", self.path, error) from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self) -> list[Token]:
        """All tokens, also expired ones; none where there is no file.

        Raises DataLoss where it is not a file of tokens, PermissionDenied where it cannot be read.
        """
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refused("read", self.path, error) from error
        except (ValueError, UnicodeDecodeError) as error:  # msgspec's errors are ValueErrors
            raise DataLoss(f"{self.path} is not a file of tokens: {error}") from error
        if content.format != 1:
            raise DataLoss(f"{self.path} has format {content.format}; this version knows format 1")
        return content.tokens

    def create(
        self,
        grants: Sequence[Grant],
        *,
        note: str = "",
        expires: datetime | None = None,
        requests_per_second: float | None = None,
        burst: int | None = None,
    ) -> NewToken:
        """Makes a token, keeps its digest. Raises as `read`, and InvalidArgument for values out of range."""
        if not grants:
            raise InvalidArgument("a token needs at least one scope", field="scope")
        now = datetime.now(UTC)
        if expires is not None and expires <= now:
            raise InvalidArgument(f"expires is {expires.isoformat()}, which has passed", field="expires")
        if burst is not None and requests_per_second is None:
            raise InvalidArgument("a burst needs a rate to which it belongs", field="burst")
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        digest = digest_of(secret.encode()).hex()
        try:
            token = Token(
                id=digest[:ID_DIGITS],
                sha256=digest,
                grants=list(grants),
                created=now.replace(microsecond=0),
                note=note,
                expires=expires,
                requests_per_second=requests_per_second,
                burst=burst,
            )
        except ValueError as error:
            raise InvalidArgument(str(error), field=str(error).partition(" ")[0]) from error
        with self._changing():
            self._write([*self.read(), token])
        return NewToken(secret, token)

    def revoke(self, token_id: str) -> Token:
        """Removes a token, by its id or by a start of it that no other has. Raises NotFound."""
        with self._changing():
            tokens = self.read()
            found = [token for token in tokens if token_id and token.id.startswith(token_id)]
            if len(found) != 1:
                several = f"the ids of {len(found)} tokens start" if found else "the id of no token starts"
                raise NotFound(f"{several} with {token_id!r}; see `earshot tokens list`", field="id")
            self._write([token for token in tokens if token is not found[0]])
        return found[0]

    def _changing(self) -> FileLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=LOCK_SECONDS, mode=0o600)
        except OSError as error:
            raise _refused("written", self.path, error) from error

    def _write(self, tokens: list[Token]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_Content(tokens)), indent=2)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as stream:  # noqa: PTH123  # a path has no mode
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _refused("written", self.path, error) from error


def digest_of(secret: bytes) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(secret).digest()


def _refused(what: str, path: Path, error: OSError) -> EarshotError:
    kind = PermissionDenied if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else FailedPrecondition
    return kind(f"the file of tokens {path} cannot be {what}: {error.strerror}", field="tokens_file")
