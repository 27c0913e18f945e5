import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.jobs.sources.html_text import html_text, title_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>One</p><p>Two<br/>three</p>", "One\nTwo\nthree"),
        ("<P>CAPS<BR>count</P>", "CAPS\ncount"),
        ("Intro<ul><li>a<li>b <b>bold</b></ul>outro", "Intro\n- a\n- b bold\noutro"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("<p>a</p><script>if (x<y) {}</script><style>p {}</style><!-- c --><p>b</p>", "a\nb"),
        ("hello <b>world</b>!", "hello world!"),
        ("", ""),
        ("<p> </p><p>&nbsp;</p>", ""),
    ],
)
def test_blocks_break_lines_and_invisible_elements_vanish(source, text):
    assert html_text(source) == text


@pytest.mark.parametrize(
    "prose",
    [
        "x < y and y > z",
        "a <b and c",
        "use <stdio.h> and List<String>",
        "mail <jane@example.com>, I <3 you",
        "An episode on the <script> tag",
        "<" * 1000,
        "?a=1&copy=2 &amp without a semicolon",
    ],
)
def test_plain_prose_with_angle_brackets_and_ampersands_survives(prose):
    assert html_text(prose) == prose


def test_a_less_than_sign_survives_inside_markup_too():
    assert html_text("<p>if x<y then 10 &lt; 20, the &lt;b&gt; tag</p>") == "if x<y then 10 < 20, the <b> tag"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a&amp;nbsp;b &amp;amp; c</p>", "a b & c"),
        ("Tom &amp;amp; Ana &eacute;&#8220;x&#x201d;", "Tom & Ana é“x”"),
        ("&lt;p&gt;Hi&lt;/p&gt;&lt;p&gt;you&lt;/p&gt;", "Hi\nyou"),
    ],
)
def test_entities_are_decoded_also_where_they_were_escaped_twice(source, text):
    assert html_text(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<a href='https://x.example/abc'>the notes</a>", "the notes"),
        ("<a href='https://x.example/a'>https://x.example/a</a> here", "x.example here"),
        ("Visit https://www.x.example/give?utm=1.", "Visit x.example."),
        ("(https://x.example/a), https://y.example", "(x.example), y.example"),
        ("by [Level 1](https://x.example/) today", "by Level 1 today"),
    ],
)
def test_of_a_link_the_text_stays_and_of_an_address_the_host(source, text):
    assert html_text(source) == text


def test_plain_text_keeps_its_lines_without_stray_white_space():
    assert html_text("  one\t two \r\n\r\n\r\n- three\u200b\n") == "one two\n- three"


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("The Weird and Wonderful <link> Tag", "The Weird and Wonderful <link> Tag"),
        ("Crumb &amp;amp; <em>Catalyst</em>\n 2", "Crumb & Catalyst 2"),
        ("One<br>two", "One two"),
    ],
)
def test_a_title_is_one_line_and_keeps_tags_it_speaks_about(source, title):
    assert title_text(source) == title


@given(st.text(alphabet="<>/&;ab pdivlscrt!-\n\"'=h:.", max_size=300))
def test_any_text_becomes_lines_without_blank_ones_or_double_spaces(source):
    for line in html_text(source).split("\n") if html_text(source) else []:
        assert line == " ".join(line.split())
        assert line


def test_hostile_nesting_ends_in_seconds():
    started = time.monotonic()
    html_text("<ul><li>" * 500_000)
    assert time.monotonic() - started < 30
