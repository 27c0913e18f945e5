import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.jobs.sources.passages import Segment, passages


@st.composite
def segment_lists(draw):
    """Segments of numbered words, a full stop at the end of some."""
    segments, at, count = [], 0.0, 0
    for length in draw(st.lists(st.integers(1, 60), min_size=1, max_size=20)):
        seconds = draw(st.integers(1, 30))
        has_start, has_end = draw(st.booleans()), draw(st.booleans())
        text = " ".join(f"w{number}" for number in range(count, count + length)) + draw(
            st.sampled_from(["", "."])
        )
        segments.append(
            Segment(text, at if has_start else None, at + seconds if has_end and has_start else None)
        )
        at += seconds
        count += length
    return segments


def numbered(count, **times):
    return Segment(" ".join(f"w{number}" for number in range(count)), **times)


@given(segment_lists(), st.integers(16, 150), st.sampled_from([0.0, 0.25, 0.5]))
def test_every_word_is_covered_in_order_and_no_window_is_far_from_its_length(segments, words, overlap):
    windows = [
        [int(word.strip("w.")) for word in passage.text.split()]
        for passage in passages(segments, words=words, overlap=overlap)
    ]
    total = sum(len(segment.text.split()) for segment in segments)
    assert windows[0][0] == 0
    assert windows[-1][-1] == total - 1
    for window in windows:
        assert window == list(range(window[0], window[-1] + 1))
        assert len(window) <= words + words // 8 + words // 4
    for window, following in itertools.pairwise(windows):
        assert window[0] < following[0] <= window[-1] + 1
        assert len(window) >= words - words // 8


@given(segment_lists())
def test_start_times_never_run_backwards_and_lie_in_the_transcript(segments):
    starts = [passage.start_s for passage in passages(segments, words=20) if passage.start_s is not None]
    assert starts == sorted(starts)
    known = [segment.start_s for segment in segments if segment.start_s is not None]
    assert all(known[0] - 0.001 <= start <= known[-1] + 30 for start in starts)


def test_windows_share_half_their_words():
    first, second, *_ = passages([numbered(1000)])
    assert (first.text.split()[0], first.text.split()[-1]) == ("w0", "w119")
    assert second.text.split()[0] == "w60"


def test_a_window_ends_at_the_end_of_a_sentence_nearby():
    text = " ".join(["word"] * 107 + ["end."] + ["more"] * 300)
    assert passages([Segment(text)])[0].text.endswith("end.")


def test_a_short_tail_joins_the_last_window():
    assert len(passages([numbered(149)])) == 1
    assert len(passages([numbered(150)])) == 2


def test_a_passage_starts_when_its_first_segment_does():
    segments = [numbered(60, start_s=number * 20.0) for number in range(4)]
    assert [passage.start_s for passage in passages(segments)] == [0.0, 20.0, 40.0]


@pytest.mark.parametrize(
    ("segments", "starts"),
    [
        ([numbered(240, start_s=0.0, end_s=120.0)], [0.0, 30.0, 60.0]),
        ([numbered(240, start_s=10.0), numbered(1, start_s=130.0)], [10.0, 40.0, 70.0]),
        ([numbered(240, start_s=10.0)], [10.0, 10.0, 10.0]),
        ([numbered(240)], [None, None, None]),
        ([numbered(240, start_s=10.0, end_s=5.0)], [10.0, 10.0, 10.0]),
    ],
)
def test_inside_a_long_segment_time_passes_with_the_words_where_its_end_is_known(segments, starts):
    assert [passage.start_s for passage in passages(segments)] == starts


def test_scripts_without_spaces_are_cut_too_and_nothing_is_lost():
    text = "今日は天気がいいですね。" * 60
    made = passages([Segment(text)])
    assert len(made) > 5
    assert max(len(passage.text) for passage in made) < 200
    assert set(re.findall(r"[^。]+。", text)) == {"今日は天気がいいですね。"}
    assert made[0].text.endswith("。")


def test_silence_makes_no_passage():
    assert passages([]) == passages([Segment("  ", 1.0)]) == ()
