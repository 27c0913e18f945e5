import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.jobs.sources.fields import iso_date, language_tag, seconds


@pytest.mark.parametrize(
    "value",
    [
        "2023-01-05",
        "2023-01-05T23:59:00-08:00",
        "2023-01-05 10:00",
        "20230105",
        "2023/1/5",
        "2023.01.05",
        "5.1.2023",
        "05. 01. 2023",
        "Thu, 05 Jan 2023 23:30:00 +0100",
        "Thu, 5 Jan 23 10:00:00 GMT",
        "5 January 2023",
        "January 5, 2023",
        "Thursday, Jan. 5th, 2023",
        "Jan 5 2023 10:00AM",
        "1672900000",
        1672900000,
        1672900000123,
        1672900000.5,
    ],
)
def test_every_usual_way_to_write_a_day_is_understood(value):
    assert iso_date(value) == "2023-01-05"


def test_a_slashed_date_is_understood_only_where_one_number_must_be_the_day():
    assert iso_date("1/15/2023") == iso_date("15/1/2023") == "2023-01-15"
    assert iso_date("3/4/2023") is None
    assert iso_date("4/4/2023") == "2023-04-04"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "yesterday",
            "2023",
            "2023-01",
            "202311",
            "2023-02-30",
            "0000-00-00",
            "32 Foo 2020",
            "9999-01-01",
        ),
        *(0, 5, 2023, -1, 1e30, -62135596801, float("nan"), True, None, [], {}),
    ],
)
def test_what_names_no_day_is_unknown(value):
    assert iso_date(value) is None


@given(
    st.text(max_size=40)
    | st.integers()
    | st.floats()
    | st.from_regex(r"[0-9]{1,4}[-/. ][A-Za-z0-9]{1,9}.[0-9]+")
)
def test_no_value_makes_reading_a_date_fail(value):
    day = iso_date(value)
    assert day is None or len(day) == 10


@given(st.dates(min_value=datetime.date(1900, 1, 1), max_value=datetime.date(2100, 12, 31)))
def test_a_day_survives_its_usual_spellings(day):
    for form in ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d %b %Y", "%B %d, %Y", "%a, %d %b %Y %H:%M:%S +0000"):
        assert iso_date(day.strftime(form).zfill(4)) == day.isoformat()


@pytest.mark.parametrize(
    ("value", "duration"),
    [
        ("3600", 3600),
        ("59:30", 3570),
        ("1:02:03", 3723),
        ("61:08", 3668),
        (12, 12),
        (12.5, 12.5),
        (" 90.5 ", 90.5),
    ],
)
def test_durations_are_read_as_seconds(value, duration):
    assert seconds(value) == duration


@pytest.mark.parametrize("value", ["", "an hour", "nan", "inf", "00:00", 0, -1, True, None, [], float("nan")])
def test_what_is_no_duration_is_unknown(value):
    assert seconds(value) is None


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("en-GB", "en"),
        ("EN_us", "en"),
        (" de ", "de"),
        ("zh-Hans-CN", "zh"),
        ("English", None),
        ("", None),
        (None, None),
    ],
)
def test_a_language_is_its_primary_subtag(value, tag):
    assert language_tag(value) == tag
