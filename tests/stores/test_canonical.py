"""Canonical JSON and the content hash: what equality of two records rests on."""

import hashlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tasks.stores import canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
METADATA = st.dictionaries(TEXT, VALUE | st.lists(VALUE, max_size=3), max_size=6)

quick = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@quick
@given(METADATA)
def test_every_value_comes_back_with_its_type(metadata: dict[str, Any]) -> None:
    """Reading what was written gives the same values: 1, 1.0 and true stay three things."""
    second = canonical.loads(canonical.dumps(metadata))
    assert second == metadata
    assert kinds(second) == kinds(metadata)


@quick
@given(METADATA, st.randoms(use_true_random=False))
def test_equal_metadata_has_one_text(metadata: dict[str, Any], random: Any) -> None:
    """The order of keys does not matter, and what was read back is written the same again."""
    shuffled = list(metadata.items())
    random.shuffle(shuffled)
    text = canonical.dumps(metadata)
    assert canonical.dumps(dict(shuffled)) == text
    assert canonical.dumps(canonical.loads(text)) == text


@quick
@given(
    st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(0.01, 1e15), max_size=6)
)
def test_the_fast_path_and_the_careful_one_agree(metadata: dict[str, Any]) -> None:
    """A value that needs care elsewhere in a record does not change how the plain ones are written."""
    assert canonical.dumps(metadata) == canonical._careful(metadata)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e16, "10000000000000000.0"),
        (-1e16, "-10000000000000000.0"),
        (-0.0, "0.0"),
        (1.0, "1.0"),
        (1e-5, "0.00001"),
        (-1.5e-7, "-0.00000015"),
        (0.0001, "0.0001"),
        (2**63 - 1, "9223372036854775807"),
        (2**80, str(2**80)),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (True, "true"),
        ("NaN", '"NaN"'),
        ("é\0\"\\", '"é\\u0000\\"\\\\"'),
        ([1, 1.0, "a"], '[1,1.0,"a"]'),
    ],
)  # fmt: skip
def test_numbers_are_written_as_jsonb_keeps_them(value: Any, text: str) -> None:
    """No exponents, a float stays a float, minus zero is zero, and text is UTF-8."""
    assert canonical.dumps({"k": value}) == f'{{"k":{text}}}'


def test_tiny_numbers_are_written_out() -> None:
    """The smallest double has 324 digits after the point and no exponent."""
    text = canonical.dumps({"k": 5e-324})
    assert text
    assert "e" not in text
    assert json.loads(text) == {"k": 5e-324}


def test_null_is_not_empty() -> None:
    """No metadata and empty metadata are two things."""
    assert canonical.dumps(None) is None
    assert canonical.loads(None) is None
    assert canonical.dumps({}) == "{}"


def test_the_hash_tells_every_field_apart() -> None:
    """Null, '' and text in any field, and text that moved from one field to the next, give different hashes."""
    values = [None, "", "a", "aa", "-", "1:a"]
    hashes = {canonical.content_hash(*row) for row in itertools.product(values, repeat=3)}
    assert len(hashes) == len(values) ** 3
    assert {len(h) for h in hashes} == {32}


def test_the_hash_never_changes() -> None:
    """Hashes are stored with the rows, so a later version must compute the same ones."""
    assert canonical.content_hash("d", '{"a":1}', None) == hashlib.sha256(b'+1:d+7:{"a":1}-').digest()


def kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kinds(v) for key, v in value.items()}
    return [kinds(v) for v in value] if isinstance(value, list) else type(value)
