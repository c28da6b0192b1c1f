from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text import digits
from training.data.wording import LOW_TO_HIGH, cut_points, phrase, phrases, range_words, short_cut, words_of


def shares(numbers: np.ndarray, ranges: list[dict[str, object]]) -> list[float]:
    ends = [float(str(each["below"])) for each in ranges[:-1]]
    return (np.bincount(np.searchsorted(ends, numbers, side="right"), minlength=len(ranges)) / len(numbers)).tolist()


def test_ranges_hold_about_equally_many_and_their_ends_are_round() -> None:
    numbers = np.random.default_rng(0).lognormal(5, 1, 5000)
    ranges = range_words(numbers)
    assert [each["word"] for each in ranges] == list(LOW_TO_HIGH)
    assert shares(numbers, ranges) == pytest.approx([1 / 7] * 7, abs=0.025)
    assert all(len(f"{each['below']:g}") <= 5 for each in ranges[:-1])


def test_a_frequent_lowest_value_has_its_own_word() -> None:
    numbers = np.concatenate([np.zeros(600), np.random.default_rng(0).uniform(1, 100, 400)])
    ranges = range_words(numbers)
    assert ranges[0]["word"] == "zero"
    assert shares(numbers, ranges)[0] == 0.6
    assert ranges[1]["word"] == "lowest"


def test_fewer_ranges_than_words_leave_some_out_but_never_say_one_twice() -> None:
    numbers = np.repeat([6, 12, 18, 24, 30, 36, 48, 60, 72, 84, 96], [1, 2, 1, 4, 2, 5, 6, 60, 2, 1, 1]).astype(float)
    words = [str(each["word"]) for each in range_words(numbers)]
    assert len(words) == len(set(words))
    assert [LOW_TO_HIGH.index(word) for word in words] == sorted(LOW_TO_HIGH.index(word) for word in words)


NUMBERS = st.lists(st.floats(-1e12, 1e12) | st.integers(-5, 5).map(float), min_size=12, max_size=80)


@given(NUMBERS.filter(lambda numbers: len(set(numbers)) > 10))
def test_any_numbers_get_ranges_that_rise(numbers: list[float]) -> None:
    ranges = range_words(np.array(numbers))
    ends = [each["below"] for each in ranges[:-1]]
    assert all(low < high for low, high in pairwise(ends))
    assert "below" not in ranges[-1]
    assert len({each["word"] for each in ranges}) == len(ranges)
    assert all(min(numbers) < end <= max(numbers) for end in ends)


@given(NUMBERS, st.integers(2, 9))
def test_cuts_rise_and_lie_between_the_numbers(numbers: list[float], ranges: int) -> None:
    cuts = cut_points(np.array(numbers), ranges)
    assert all(low < high for low, high in pairwise(cuts))
    assert len(cuts) < ranges
    assert all(min(numbers) < cut <= max(numbers) for cut in cuts)


def test_a_cut_is_as_short_as_the_rows_allow() -> None:
    assert short_cut(np.arange(1000.0), 333) == 330
    assert short_cut(np.array([1.0, 2.5, 2.6, 9.0]), 2.6) == 2.6


def test_few_numbers_are_said_in_digits_and_truth_as_yes_and_no() -> None:
    assert words_of({"type": "integer"}, np.array([0, 1, 2, np.nan])) == []
    assert words_of({"type": "boolean"}, np.array([])) == {"false": "no", "true": "yes"}
    assert words_of({"type": "category"}, np.array([])) == {}


def test_phrases_are_the_values_and_texts_come_last() -> None:
    fields = [{"name": "a_note", "type": "text"}, {"name": "x", "type": "number", "title": "the {x}"}]
    assert phrases(fields) == ["{x}", "{a_note}"]
    assert phrase(fields[0]) == "{a_note}"


def test_a_frequent_lowest_number_is_said_as_the_model_reads_digits() -> None:
    numbers = np.concatenate([np.full(40, 12350.0), np.linspace(20_000, 90_000, 60)])
    assert range_words(numbers)[0]["word"] == digits(12350.0) == "12350"
