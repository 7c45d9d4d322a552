"""Embedders: the registry's names, and the hashing embedder's promises."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tasks.base.errors import FatalError, UsageError
from tasks.embedders.registry import open_embedder
from tasks.runs.vectors import keys_of

TEXTS = [
    "",
    " ",
    "\0",
    "!?",
    "the same words",
    "The SAME words",
    "words same the",
    "😀",
    "日本語 テキスト",
    "a" * 10_000,
    "x y " * 500,
]


def test_vectors_are_the_same_in_every_process() -> None:
    """Another process, with another hash seed, computes the same bytes."""
    program = (
        "import sys; from tasks.embedders.registry import open_embedder; from tests.embedders.test_embedders import TEXTS; "
        "sys.stdout.buffer.write(open_embedder('hashing/64').embed(TEXTS).whole.tobytes())"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program]
        result = subprocess.run(
            command, env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, capture_output=True, check=True
        )
        assert result.stdout == open_embedder("hashing/64").embed(TEXTS).whole.tobytes()


@pytest.mark.parametrize("dimensions", [1, 2, 3, 384])
def test_every_text_has_a_unit_vector(dimensions: int) -> None:
    """float32[n, d] of length 1, for empty text and for text without a word too."""
    embedded = open_embedder(f"hashing/{dimensions}").embed(TEXTS).whole
    assert embedded.shape == (len(TEXTS), dimensions)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_no_text_makes_a_zero_vector(texts: list[str]) -> None:
    """Words that cancel out in a single component still make a vector that an index finds."""
    for name in ("hashing/1", "hashing/2"):
        embedded = open_embedder(name).embed(texts).whole
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), np.ones(len(texts)), atol=1e-6)


def test_a_batch_is_its_rows() -> None:
    """A text's vector does not depend on what it is embedded with."""
    embedder = open_embedder("hashing/32")
    alone = np.concatenate([embedder.embed([text]).whole for text in TEXTS])
    np.testing.assert_array_equal(embedder.embed(TEXTS).whole, alone)


def test_shared_words_are_near() -> None:
    """Case does not matter, order a little, and texts without a common word are far apart."""
    same, upper, shuffled, other = (
        open_embedder("hashing/384")
        .embed(["the same words", "The SAME words", "words same the", "nothing in common"])
        .whole
    )
    assert same @ upper == pytest.approx(1)
    assert 0.5 < same @ shuffled < 0.99
    assert same @ other < 0.3


def test_a_space_is_known_by_all_that_makes_it() -> None:
    """Two spaces have one fingerprint only when nothing about them differs."""
    space = open_embedder("hashing/384").space
    assert space.dimensions == 384
    assert space.fingerprint.startswith("hashing/384/")
    assert space.fingerprint == open_embedder("hashing/384").space.fingerprint
    others = [
        replace(space, **{name: value})
        for name, value in (
            ("dimensions", 385),
            ("revision", "2"),
            ("preprocessing", "x"),
            ("prefix", "q: "),
            ("normalized", False),
        )
    ]
    assert len({s.fingerprint for s in [space, *others]}) == 6


def test_keys_are_those_of_the_first_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 0.1.0 bought is found: a text is kept under its SHA-256, an over-long one under that of text, NUL and variant."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    plain = "53c2bbca83e9f8b55d56a8687056c5027b4245348977848d28fb3aaa01abccff"
    long = {
        "": "e797e2af6f05c24cdd064793ce60a9d01302d9a3b0e5dff5bb0c046b87f2f668",
        "truncate": "d5e80fac4700a5fd23e531ef1cc4f60f55ae687fa850ce49ef4b8635c72721b0",
        "mean": "c33df7ee2bd06ab2285a9b21fea49b1dc0b82e72ce8a11494bd0cbcba148ec36",
    }
    assert keys_of(open_embedder("hashing/8"), ["naïve 😀", "x" * 9000]) == [
        bytes.fromhex(plain),
        bytes.fromhex(long[""]),
    ]
    for variant, kept in long.items():
        option = f"?on_too_long={variant}" if variant else ""
        keys = keys_of(open_embedder(f"openai/text-embedding-3-small{option}"), ["naïve 😀", "x" * 9000])
        assert keys == [bytes.fromhex(plain), bytes.fromhex(kept)], variant


def test_an_image_is_kept_under_its_bytes_and_refused_by_a_model_of_texts() -> None:
    """Bytes have a key as texts have; a model that takes text alone says so."""
    assert keys_of(open_embedder("hashing/8"), [b"\x89PNG"]) == [hashlib.sha256(b"\x89PNG").digest()]
    with pytest.raises(FatalError, match="hashing/8 takes text, not images"):
        open_embedder("hashing/8").embed([b"\x89PNG"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hashing", "1 to 16000"),
        ("hashing/", "1 to 16000"),
        ("hashing/0", "1 to 16000"),
        ("hashing/16001", "1 to 16000"),
        ("hashing/-1", "1 to 16000"),
        ("hashing/²", "1 to 16000"),
        ("hashing/384.0", "1 to 16000"),
        ("nobody/model", "no provider is called 'nobody'; available: .*hashing"),
        ("", "no provider is called ''"),
    ],
)
def test_an_unknown_model_is_refused_in_one_line(name: str, reason: str) -> None:
    """The message names what was asked for and what there is."""
    with pytest.raises(UsageError, match=reason) as raised:
        open_embedder(name)
    assert repr(name) in str(raised.value)
