"""Files behind fsspec, on its own file systems."""

from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tasks.base.errors import FatalError, TransientError
from tasks.contents.image.patience import Patience
from tasks.contents.image.remote import Remote
from tasks.embedders.interface import RowError


@pytest.fixture
def bucket() -> Iterator[str]:
    """A root with two files, and a secret beside it."""
    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/photos/a.jpg": b"picture", "/bucket/photos/empty.jpg": b"", "/bucket/secret": b"secret"})
    yield "memory://bucket/photos"
    system.rm("/bucket", recursive=True)


class Unreliable(MemoryFileSystem):
    """Fails as its next error says."""

    protocol = "unreliable"
    cachable = False
    errors: list[Exception] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("unreliable://", "memory://"))

    def cat_file(self, *arguments: Any, **options: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super().cat_file(*arguments, **options)


fsspec.register_implementation("unreliable", Unreliable, clobber=True)


def kind(result: bytes | RowError) -> str:
    assert isinstance(result, RowError)
    return result.kind


def test_files_are_read_below_the_root(bucket: str) -> None:
    """By what follows it, and by their whole URL; an object without bytes has none."""
    source = Remote(bucket, 100)
    assert source.read("a.jpg") == b"picture"
    assert source.read("memory://bucket/photos/a.jpg") == b"picture"
    assert source.read("empty.jpg") == b""
    assert Remote(f"{bucket}/", 100).read("a.jpg") == b"picture"


@pytest.mark.parametrize(
    "reference",
    [
        "../secret",
        "x/../../secret",
        "/bucket/secret",
        "memory://bucket/secret",
        "s3://other/a.jpg",
        "file:///etc/passwd",
    ],
)
def test_a_reference_that_leads_out_of_the_root_is_refused(bucket: str, reference: str) -> None:
    """By dots, as an absolute path, as a URL of something else."""
    assert kind(Remote(bucket, 100).read(reference)) == "escapes"


def test_no_more_is_read_than_the_limit(bucket: str) -> None:
    """A part tells enough."""
    assert kind(Remote(bucket, 6).read("a.jpg")) == "too_large"
    assert Remote(bucket, 7).read("a.jpg") == b"picture"


def test_what_is_missing_is_told_from_a_root_that_is(bucket: str) -> None:
    """The one is a row's own, the other stops the run; so does a protocol that nothing here speaks."""
    assert kind(Remote(bucket, 100).read("gone.jpg")) == "missing"
    with pytest.raises(FatalError, match="there is nothing at memory://nowhere/photos"):
        Remote("memory://nowhere/photos", 100).read("a.jpg")
    with pytest.raises(FatalError, match="carrier"):
        Remote("carrier://pigeon/photos", 100).read("a.jpg")


def test_errors_of_a_store_are_told_apart() -> None:
    """What may pass is tried again, in the end TransientError; no right is the row's own; what the store's library says of its
    credentials stops the run."""
    fsspec.filesystem("unreliable").pipe("/u/a.jpg", b"picture")
    source = Remote("unreliable://u", 100, Patience(3, 0.001))
    Unreliable.errors += [TimeoutError("slow"), ConnectionResetError("gone")]
    assert source.read("a.jpg") == b"picture"
    Unreliable.errors += [TimeoutError("slow")] * 3
    with pytest.raises(TransientError, match=r"'a.jpg': slow; tried 3 times"):
        source.read("a.jpg")
    Unreliable.errors += [PermissionError("Forbidden")]
    assert kind(source.read("a.jpg")) == "denied"
    Unreliable.errors += [RuntimeError("Unable to locate credentials")]
    with pytest.raises(FatalError, match="Unable to locate credentials"):
        source.read("a.jpg")
    fsspec.filesystem("unreliable").pipe("/u/none.jpg", b"")
    Unreliable.errors += [OSError("InvalidRange")]
    assert source.read("none.jpg") == b""
