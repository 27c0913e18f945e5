"""The tree of errors is one tree, and its docstring shows the table it has."""

from __future__ import annotations

import re

import grpc
import pytest

from earshot import errors


def test_the_docstring_shows_the_table_as_it_is() -> None:
    shown = re.findall(r"^\| (\w+) +\| (\w+) \((\d+)\) *\| (\d+) ", errors.__doc__ or "", re.MULTILINE)
    actual = [(row.error.__name__, code, str(row.grpc), str(row.http)) for code, row in errors.TABLE.items()]
    assert shown == actual


def test_codes_and_numbers_are_those_of_grpc() -> None:
    numbers = {status.name: status.value[0] for status in grpc.StatusCode}
    assert all(numbers[code] == row.grpc for code, row in errors.TABLE.items())


def test_every_error_of_the_tree_is_in_the_table() -> None:
    assert {row.error for row in errors.TABLE.values()} == set(errors.EarshotError.__subclasses__())


def test_all_is_complete() -> None:
    ours = errors.__name__
    public = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == ours}
    assert public | {"TABLE"} == set(errors.__all__)


@pytest.mark.parametrize("code", sorted(errors.TABLE))
def test_a_code_becomes_its_error_again(code: str) -> None:
    error = errors.from_code(code, "why")
    assert (error.code, error.message, errors.row_of(error).error) == (code, "why", type(error))


def test_an_unknown_code_becomes_internal() -> None:
    assert type(errors.from_code("NO_SUCH_CODE", "why")) is errors.Internal
