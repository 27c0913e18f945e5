"""What keeps paths that are not UTF-8 from our application: pyvoy decodes them before it asks anybody."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["refuse_malformed_paths"]

# Percent-encoded bytes that are UTF-8; source: RFC 3629, section 4. Envoy takes no larger program than this.
_ANY = "[0-9A-Fa-f]"
_HIGH = f"%[89ABab]{_ANY}"
_LEAD = "|".join(
    (
        "[Cc][2-9A-Fa-f]",
        f"[Dd]{_ANY}",
        f"[Ee](?:0%[ABab]{_ANY}|[1-9A-Ca-cEeFf]{_HIGH}|[Dd]%[89]{_ANY})",
        f"[Ff](?:0%[9ABab]{_ANY}|[1-3]{_HIGH}|4%8{_ANY}){_HIGH}",
    )
)
WELL_FORMED = rf"(?:[^%?]|%(?:[0-7]{_ANY}|(?:{_LEAD}){_HIGH}))*(?:\?.*)?"
_ANSWER = {
    "error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "the path is not percent-encoded UTF-8"}
}
_TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


def refuse_malformed_paths(http: dict[str, Any]) -> None:
    """Puts the check in front of the application, into the configuration of Envoy's HTTP connections."""
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": WELL_FORMED}}}
    policy = {"permissions": [{"not_rule": {"header": path}}], "principals": [{"any": True}]}
    rules = {"action": "DENY", "policies": {"malformed path": policy}}
    check = {"name": "envoy.filters.http.rbac", "typed_config": {"@type": _TYPE, "rules": rules}}
    http["http_filters"].insert(0, check)
    forbidden = {"op": "EQ", "value": {"default_value": 403, "runtime_key": "earshot.forbidden"}}
    denied = {"status_code_filter": {"comparison": forbidden}}
    http["local_reply_config"] = {
        "mappers": [
            {
                "filter": denied,
                "status_code": 400,
                "body_format_override": {
                    "text_format_source": {"inline_string": json.dumps(_ANSWER)},
                    "content_type": "application/json",
                },
            }
        ]
    }
