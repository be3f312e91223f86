"""G11: what arrived survives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import codec

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)


@given(JSON)
def test_g11_any_json_is_read_as_python_reads_it(value):
    raw = json.dumps(value).encode()
    assert codec.loads(raw) == json.loads(raw)


def test_g11_a_member_is_the_exact_bytes_that_stood_there():
    raw = b'{"data": {"z": 12345678901234567890, "a": 1.50, "a": 2, "n": "\\u0000"} , "data2": 1}'
    assert codec.member(raw, "data") == b'{"z": 12345678901234567890, "a": 1.50, "a": 2, "n": "\\u0000"}'


def test_g11_a_lone_surrogate_survives():
    assert codec.loads(codec.member(b'{"data": {"x": "\\ud800"}}', "data")) == {"x": "\ud800"}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"data": 1}', b"[" * 100_000])
def test_what_is_not_there_is_a_value_error(raw):
    with pytest.raises(ValueError):  # noqa: PT011
        codec.member(raw, "other")
