"""Who may come in: tokens and what they allow, one table of rules for every method, limits on rates."""

from __future__ import annotations

from .admission import ANYBODY, Admission, act, current
from .exposure import check_exposure, is_loopback
from .guard import Guard
from .rules import RULES, Rule
from .tokens import Grant, NewToken, Scope, Token, TokenFile

__all__ = [
    "ANYBODY",
    "RULES",
    "Admission",
    "Grant",
    "Guard",
    "NewToken",
    "Rule",
    "Scope",
    "Token",
    "TokenFile",
    "act",
    "check_exposure",
    "current",
    "is_loopback",
]
