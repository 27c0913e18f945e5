from __future__ import annotations

from pathlib import Path

import pytest

from earshot.errors import PermissionDenied
from earshot.server.allowed import check_allowed

FEEDS = "https://feeds.example/shows"


@pytest.mark.parametrize(
    "source",
    [FEEDS, f"{FEEDS}/", f"{FEEDS}/a.xml", f"{FEEDS}/a.xml?page=2", "https://feeds.example:443/shows/b"],
)
def test_what_lies_beneath_an_allowed_address_may_be_read(source: str) -> None:
    check_allowed([source], ["/srv/feeds", FEEDS])


@pytest.mark.parametrize(
    "source",
    [
        "https://feeds.example/showsecrets",
        "https://feeds.example/",
        "http://feeds.example/shows/a.xml",
        "https://feeds.example:8443/shows/a.xml",
        "https://feeds.example.evil.example/shows/a.xml",
        "https://feeds.example@evil.example/shows/a.xml",
        "https://user:word@feeds.example/shows/a.xml",
        "https://feeds.example/shows/../admin",
        "https://feeds.example/shows/%2e%2e/admin",
        "https://feeds.example/shows/..%2fadmin",
        "https://feeds.example/shows/..\\admin",
        "https://feeds.example:port/shows/a.xml",
        "https://[feeds/shows",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
    ],
)
def test_all_else_may_not(source: str) -> None:
    with pytest.raises(PermissionDenied, match="rebuild_sources"):
        check_allowed([source], ["/srv/feeds", FEEDS])


def test_links_are_followed_before_folders_are_compared(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (tmp_path / "alias").symlink_to(inside)
    check_allowed([str(inside), str(inside / "a"), str(tmp_path / "alias" / "a")], [str(inside)])
    for source in (inside / "link", inside / "link" / "a", inside / ".." / "outside", f"{inside}side"):
        with pytest.raises(PermissionDenied):
            check_allowed([str(source)], [str(inside)])


def test_by_itself_nothing_is_allowed() -> None:
    with pytest.raises(PermissionDenied, match="which is empty"):
        check_allowed(["feed.xml"], [])
