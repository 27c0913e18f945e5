"""Who is there: from a request's headers to a caller, by a file of tokens that may change at any time."""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from earshot.errors import EarshotError, NotFound, Unauthenticated, Unimplemented

from .admission import ANYBODY, NOBODY, Admission, Caller, index_of
from .bucket import Bucket
from .rules import RULES, Route, route_of
from .tokens import EVERY_INDEX, Token, TokenFile, digest_of

__all__ = ["Guard"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
KEY_BYTES = 6  # a token's id, which is no secret

_Stamp = tuple[int, int, int]


class _Known(NamedTuple):
    digest: bytes
    token: Token
    caller: Caller


class Guard:
    """Lets calls in. With no file, or until one exists, everybody; else who has a token.

    Looks at the file at most twice a second. One that cannot be read any more, or is gone, changes nothing:
    a server that has asked for tokens goes on asking. Belongs to one event loop.
    Rates are divided by `shares`, for the workers of a server know nothing of each other's callers.
    Raises DataLoss or PermissionDenied where the file is there and cannot be read.
    """

    def __init__(self, path: Path | None, *, shares: int = 1) -> None:
        self._shares = shares
        self._file = TokenFile(path) if path is not None else None
        self._known: dict[bytes, _Known] | None = None
        self._stamp: _Stamp | None = None
        self._problem = ""
        self._look_at = math.inf if path is None else time.monotonic() + LOOK_SECONDS
        if self._file is not None and (stamp := self._file.stamp()) is not None:
            self._learn(self._file.read())
            self._stamp = stamp

    def admits_everybody(self) -> bool:
        """Whether nobody is asked for a token."""
        if (now := time.monotonic()) >= self._look_at:
            self._look(now)
        return self._known is None

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a call would not be refused for who makes it; nothing is counted."""
        if self.admits_everybody():
            return True
        try:
            self._caller(headers)
        except Unauthenticated:
            return False
        return True

    def admit(self, path: str, headers: Mapping[bytes, bytes]) -> Admission:
        """A gRPC call, before its message is read.

        Raises Unauthenticated, PermissionDenied where the method needs more than the caller may do anywhere,
        and ResourceExhausted above the caller's rate.
        """
        if self.admits_everybody():
            return ANYBODY
        return self._admit(Route(RULES.get(path)), path, headers, Unimplemented(f"there is no method {path}"))

    def admit_http(self, verb: str, path: str, headers: Mapping[bytes, bytes]) -> Admission:
        """An HTTP request, before its body is read.

        Raises as `admit`, also for the index that the path names, and NotFound where nothing is.
        """
        if self.admits_everybody():
            return ANYBODY
        nothing = NotFound(f"there is nothing at {path} that takes {verb}; /docs lists what there is")
        return self._admit(route_of(verb, path), "", headers, nothing)

    def _admit(
        self, route: Route, path: str, headers: Mapping[bytes, bytes], nothing: EarshotError
    ) -> Admission:
        rule = route.rule
        if rule is not None and rule.scope is None:
            return Admission(self._caller_or_nobody(headers), path, rule)
        caller = self._caller(headers)
        if rule is None or rule.scope is None:
            raise nothing  # and not passed on: what has no rule is not served
        named = route.resource and index_of(route.resource)
        caller.require(rule.scope, EVERY_INDEX if rule.index == EVERY_INDEX else named)
        if rule.streams:
            return Admission(caller, path, rule, again=partial(self._look_again, caller))
        caller.take()
        return Admission(caller, path, rule, index_is_checked=named is not None)

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        secret = _secret(headers)
        digest = digest_of(secret)
        known = (self._known or {}).get(digest[:KEY_BYTES])
        # The dictionary knows only what is public of a token; the rest is compared in constant time.
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise Unauthenticated("the token is not known here: it was revoked, or belongs to another server")
        _check_date(known.caller)
        return known.caller

    def _caller_or_nobody(self, headers: Mapping[bytes, bytes]) -> Caller:
        try:
            return self._caller(headers)
        except Unauthenticated:
            return NOBODY

    def _look_again(self, caller: Caller) -> None:
        """For streams, which may outlive a token."""
        if (now := time.monotonic()) >= self._look_at:
            self._look(now)
        if not any(known.caller is caller for known in (self._known or {}).values()):
            raise Unauthenticated("the token was revoked or changed; begin a new stream")
        _check_date(caller)

    def _look(self, now: float) -> None:
        self._look_at = now + LOOK_SECONDS
        assert self._file is not None
        try:
            stamp = self._file.stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            if stamp is None:
                log.error("%s is gone; the tokens that were in it are still asked for", self._file.path)
            else:
                self._learn(self._file.read())
        except EarshotError as error:
            # Better to ask for tokens that nobody has than to let everybody in.
            self._known = self._known if self._known is not None else {}
            if error.message != self._problem:
                log.error("%s; the tokens known until now stay", error.message)
            self._problem = error.message

    def _learn(self, tokens: list[Token]) -> None:
        old = self._known or {}
        self._known = {}
        for token in tokens:
            key = bytes.fromhex(token.id)
            known = old.get(key)
            # A token that did not change keeps its caller, and so how much of its rate is used up.
            if known is None or known.token != token:
                known = _Known(bytes.fromhex(token.sha256), token, _caller_of(token, self._shares))
            self._known[key] = known
        log.info("%d tokens are known; every call needs one", len(tokens))


def _caller_of(token: Token, shares: int) -> Caller:
    rate, bucket = token.requests_per_second, None
    if rate is not None:
        bucket = Bucket(rate, token.burst or math.ceil(rate), shares=shares)
    return Caller(
        f"the token {token.id}" + (f" ({token.note})" if token.note else ""),
        token.grants,
        bucket=bucket,
        expires=token.expires.timestamp() if token.expires is not None else math.inf,
    )


def _check_date(caller: Caller) -> None:
    if caller.expires <= time.time():
        when = datetime.fromtimestamp(caller.expires, UTC).isoformat()
        raise Unauthenticated(f"{caller.name} expired at {when}")


def _secret(headers: Mapping[bytes, bytes]) -> bytes:
    """From `authorization: Bearer x`, or from `bearer: x` as Google's private endpoints have it."""
    given = headers.get(b"authorization")
    if given is not None:
        scheme, _, secret = given.partition(b" ")
        if scheme.lower() == b"bearer" and (secret := secret.strip()):
            return secret
    elif (secret := headers.get(b"bearer", b"").strip()) != b"":
        return secret
    raise Unauthenticated("this server wants a token: send the header 'Authorization: Bearer TOKEN'")
