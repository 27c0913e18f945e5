"""`earshot tokens`: make, list and revoke the tokens that a server asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earshot.errors import FailedPrecondition, InvalidArgument

from .options import DataDir, Json
from .output import console, plain_table, print_json, print_note

if TYPE_CHECKING:
    from earshot.server.auth import Token, TokenFile

__all__ = ["tokens"]

tokens = typer.Typer(
    help="Make, list and revoke tokens. Once there is one, servers of this data folder ask for it; those "
    "that run know of a change within a second.",
    no_args_is_help=True,
)

TokensFile = Annotated[
    Path | None,
    typer.Option(
        help="File of the tokens (default: $EARSHOT_TOKENS_FILE or tokens.json in the data folder).",
        show_default=False,
    ),
]

_LIFETIME = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@tokens.command()
def create(
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, write or admin, each including those before it; on one index with read:podcasts. May "
            "be repeated (default: read).",
            show_default=False,
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="Whose it is, or what for.")] = "",
    expires: Annotated[
        str | None,
        typer.Option(help="A lifetime such as 12h or 90d, or a date such as 2027-01-31.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second at most; each query of a batch is one.", show_default=False),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(help="Requests at once after a pause (default: those of a second).", show_default=False),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    tokens_file: TokensFile = None,
) -> None:
    """Make a token. It is shown this once; only its digest is kept."""
    from earshot.server.auth import Grant

    made = _file(data_dir, tokens_file).create(
        [Grant.parse(text) for text in scope or ["read"]],
        note=note,
        expires=None if expires is None else _moment(expires),
        requests_per_second=rate,
        burst=burst,
    )
    if json:
        print_json({"token": made.secret, **_row(made.token)})
        return
    console.print(made.secret, highlight=False, soft_wrap=True)
    print_note(
        f"This is the only time it is shown. Its id is {made.token.id}: earshot tokens revoke {made.token.id}"
    )


@tokens.command(name="list")
def list_tokens(json: Json = False, data_dir: DataDir = None, tokens_file: TokensFile = None) -> None:
    """List the tokens: what they allow, not what they are."""
    rows = [_row(token) for token in _file(data_dir, tokens_file).read()]
    if json:
        print_json(rows)
    elif rows:
        console.print(plain_table(list(rows[0]), [[_shown(value) for value in row.values()] for row in rows]))
    else:
        console.print("no tokens; make one: earshot tokens create", highlight=False)


@tokens.command()
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its id, or the start of it.", show_default=False)
    ],
    data_dir: DataDir = None,
    tokens_file: TokensFile = None,
) -> None:
    """Revoke a token; running servers refuse it within a second."""
    gone = _file(data_dir, tokens_file).revoke(token_id)
    console.print(
        f"revoked {gone.id}" + (f" ({gone.note})" if gone.note else ""), highlight=False, markup=False
    )


def _file(data_dir: str | None, tokens_file: Path | None) -> TokenFile:
    from earshot.server import load_settings
    from earshot.server.auth import TokenFile

    path = load_settings(data_dir=data_dir, tokens_file=tokens_file).tokens_path
    if path is None:
        raise FailedPrecondition(
            "the data lies at an address, and tokens belong to a server: say where with --tokens-file or "
            "EARSHOT_TOKENS_FILE, here and where it is served",
            field="tokens_file",
        )
    return TokenFile(path)


def _row(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "scopes": [str(grant) for grant in token.grants],
        "note": token.note,
        "created": token.created,
        "expires": token.expires,
        "rate": token.requests_per_second,
        "burst": token.burst,
    }


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return " ".join(value) if isinstance(value, list) else "" if value is None else f"{value}"


def _moment(text: str) -> datetime:
    if (match := _LIFETIME.fullmatch(text)) is not None:
        return (datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f"expires {text!r} is neither a lifetime such as 90d nor a date such as 2027-01-31",
            field="expires",
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
