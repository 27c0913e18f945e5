"""What one call may do: the caller, the rule of the method, and the check that needs the request itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import reduce
from typing import Any

from google.protobuf.message import DecodeError

from earshot.errors import InvalidArgument, PermissionDenied, ResourceExhausted

from .bucket import Bucket
from .rules import Rule, message_class
from .tokens import EVERY_INDEX, Grant, Scope

__all__ = ["ANYBODY", "NOBODY", "Admission", "Caller", "act", "current", "index_of"]

_PREFIX = "indexes/"


class Caller:
    """Who calls, what they may do where, how often, and until when (`time.time()`)."""

    __slots__ = ("_bucket", "_everywhere", "_most", "_on", "expires", "is_confined", "name")

    def __init__(
        self,
        name: str,
        grants: Sequence[Grant],
        *,
        bucket: Bucket | None = None,
        expires: float = math.inf,
    ) -> None:
        self.name = name
        self.expires = expires
        self._on: dict[str, int] = {}
        for grant in grants:
            self._on[grant.index] = max(self._on.get(grant.index, 0), grant.scope)
        self._everywhere = self._on.get(EVERY_INDEX, 0)
        self._most = max(self._on.values(), default=0)
        self._bucket = bucket
        # Whether it matters which index a request names, or of how many queries it is made.
        self.is_confined = self._everywhere < self._most or bucket is not None

    def may(self, scope: Scope, index: str | None) -> bool:
        """Whether this is allowed on an index; None: on any, `*`: on every one."""
        if self._everywhere >= scope:
            return True
        return (self._most if index is None else self._on.get(index, 0)) >= scope

    def require(self, scope: Scope, index: str | None) -> None:
        """Raises PermissionDenied naming scope and index where it is not allowed."""
        if not self.may(scope, index):
            where = {None: "any index", EVERY_INDEX: "every index"}.get(index, f"index {index!r}")
            raise PermissionDenied(f"{self.name} lacks the scope {scope.name.lower()} on {where}")

    def take(self) -> None:
        """Counts one request. Raises ResourceExhausted where the rate allows none now."""
        if self._bucket is not None and (seconds := self._bucket.take(time.monotonic())) > 0:
            raise ResourceExhausted(
                f"{self.name} may ask {self._bucket.per_second:g} times a second; "
                f"try again in {seconds:.3f} s",
                retry_after=seconds,
            )

    def owe(self, requests: int) -> None:
        """Counts more, for a request that was let in already."""
        if self._bucket is not None:
            self._bucket.owe(requests)


class Admission:
    """One call that was let in. `check` or `check_request` follows as soon as the request can be read."""

    __slots__ = ("_again", "_caller", "_index", "_path", "_rule")

    def __init__(
        self,
        caller: Caller,
        path: str,
        rule: Rule | None,
        *,
        index_is_checked: bool = False,
        again: Callable[[], None] | None = None,
    ) -> None:
        self._caller = caller
        self._path = path
        self._rule = rule if caller.is_confined and rule is not None and rule.scope is not None else None
        named = rule.index if rule is not None and rule.index != EVERY_INDEX else None
        self._index = None if index_is_checked else named
        self._again = again

    def may_read(self, index: str) -> bool:
        """Whether the caller may know of an index: lists show no other."""
        return self._caller.may(Scope.READ, index)

    def check(self, data: bytes) -> None:
        """A gRPC message: may the caller do this to this index, and for how many requests does it count.

        Parsed by protobuf itself, so that what is checked is what is done; and not at all for a caller who
        may do it everywhere and as often as they like. Raises PermissionDenied, InvalidArgument where it
        cannot be parsed, and for a message of a stream Unauthenticated and ResourceExhausted too.
        """
        if self._again is not None:
            self._again()
        if self._rule is None:
            return
        try:
            request = message_class(self._path).FromString(data)
        except DecodeError as error:
            raise InvalidArgument("the request is not the message that this method takes") from error
        self.check_request(request)

    def check_request(self, request: Any) -> None:
        """The same for a request that is decoded already, in any form that has the fields of the message."""
        rule = self._rule
        if rule is None or rule.scope is None:
            return
        if self._index is not None:
            name: str = reduce(getattr, self._index.split("."), request)
            self._caller.require(rule.scope, index_of(name))
        if rule.streams:
            self._caller.take()
        elif rule.counted:
            self._caller.owe(max(0, sum(len(getattr(request, field)) for field in rule.counted) - 1))


def index_of(resource: str) -> str:
    """`podcasts` of `podcasts`, `indexes/podcasts` and `indexes/podcasts/versions/v000001`."""
    return resource.removeprefix(_PREFIX).partition("/")[0]


ANYBODY = Admission(Caller("anybody", [Grant(Scope.ADMIN)]), "", None)
NOBODY = Caller("nobody", [])

_CURRENT: ContextVar[Admission] = ContextVar("admission", default=ANYBODY)


def current() -> Admission:
    """The admission of the call that is being answered.

    A thread sees it where its work took the context along (`contextvars.copy_context().run`).
    """
    return _CURRENT.get()


def act(admission: Admission) -> None:
    """Makes it the current one, for as long as the task of this call runs."""
    _CURRENT.set(admission)
