"""Files of a bucket, from a server that answers as Supabase Storage does."""

import json
from collections.abc import Iterator

import pytest

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.contents.image.content import Image
from tasks.contents.image.patience import Patience
from tasks.contents.image.sources import open_source
from tasks.contents.image.supabase import Bucket, headers
from tasks.embedders.interface import RowError
from tests.helpers.image_host import Answer, ImageHost, file, image_host, status

DOOR = "/storage/v1/object/authenticated/reports/"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageHost]:
    monkeypatch.setenv("SUPABASE_KEY", "eyJhbGciOi.payload.signature")
    with image_host() as running:
        yield running


def bucket(host: ImageHost, key: str = "SUPABASE_KEY") -> Bucket:
    source = open_source(Image(host.root, "reports", key, allow_hosts=("127.0.0.1",)))
    assert isinstance(source, Bucket)
    object.__setattr__(source.web, "patience", Patience(2, 0.001))
    return source


def says(number: int, **body: object) -> Answer:
    return file(json.dumps(body).encode(), "application/json", number)


def kind(result: bytes | RowError) -> str:
    assert isinstance(result, RowError)
    return result.kind


def test_a_private_object_is_read_with_the_key(host: ImageHost) -> None:
    """Which is named, and goes into both headers, since it is a JWT; a secret key of the new kind goes into its own alone."""
    host.put(f"{DOOR}a%20b%23/%C3%BC%25.jpg", b"picture")
    assert bucket(host).read("a b#/ü%.jpg") == b"picture"
    assert host.headers[0]["authorization"] == "Bearer eyJhbGciOi.payload.signature"
    assert host.headers[0]["apikey"] == "eyJhbGciOi.payload.signature"
    assert headers("sb_secret_x") == {"apikey": "sb_secret_x"}
    assert "signature" not in repr(bucket(host))


def test_a_public_object_is_read_without(host: ImageHost) -> None:
    """By another door."""
    host.put("/storage/v1/object/public/reports/a.jpg", b"picture")
    assert bucket(host, "").read("a.jpg") == b"picture"
    assert "apikey" not in host.headers[0]


def test_urls_that_supabase_gives_are_read_as_the_objects_they_are_of(host: ImageHost) -> None:
    """Public, signed with a token that may have expired, and of another bucket or project, which is refused."""
    host.put(f"{DOOR}x/a%20b.jpg", b"picture")
    source, base = bucket(host), f"{host.root}/storage/v1/object"
    for door in ("public/reports", "sign/reports", "authenticated/reports", "reports"):
        assert source.read(f"{base}/{door}/x/a%20b.jpg?token=expired") == b"picture"
    for other in (f"{base}/public/other/a.jpg", "https://other.supabase.co/storage/v1/object/public/reports/a.jpg"):
        assert kind(source.read(other)) == "escapes"


@pytest.mark.parametrize(
    "reference", ["../other/a.jpg", "x/../../a.jpg", "/a.jpg", "%2e%2e/other/a.jpg", "x\\..\\a.jpg"]
)
def test_a_reference_that_leads_out_of_the_bucket_is_refused(host: ImageHost, reference: str) -> None:
    """The key would open any bucket."""
    assert kind(bucket(host).read(reference)) == "escapes"
    assert host.asked == []


def test_what_supabase_says_is_understood(host: ImageHost) -> None:
    """A missing object is the row's own, in the codes of now and before, when 404 was said in the body of a 400; a key or bucket that
    does not do stops the run; the rest means what HTTP says."""
    source = bucket(host)
    missing = {"statusCode": "404", "error": "not_found", "message": "Object not found"}
    for number, answer in enumerate(
        [
            says(400, **missing),
            says(404, code="NoSuchKey", message="Object not found"),
            status(404),
            says(404, **missing),
        ]
    ):
        host.put(f"{DOOR}{number}", answer)
        assert kind(source.read(str(number))) == "missing"
    host.put(f"{DOOR}bad", says(400, code="InvalidKey", message="Invalid key"))
    assert kind(source.read("bad")) == "refused"
    host.put(f"{DOOR}busy", says(544, code="DatabaseTimeout", message="timed out"))
    with pytest.raises(TransientError, match="544"):
        source.read("busy")
    for answer in (
        says(400, statusCode="403", error="Unauthorized", message="signature verification failed"),
        says(403, code="AccessDenied", message="signature verification failed"),
        status(401),
    ):
        host.put(f"{DOOR}key", answer)
        with pytest.raises(
            FatalError, match=r"images.service_key: SUPABASE_KEY is not accepted by http://127.0.0.1"
        ) as told:
            source.read("key")
        assert "payload" not in str(told.value)
    host.put(f"{DOOR}bucket", says(400, statusCode="404", error="Bucket not found", message="Bucket not found"))
    with pytest.raises(FatalError, match=r"images.bucket: .* has no bucket reports"):
        source.read("bucket")


def test_a_key_that_nothing_is_called_is_told(host: ImageHost) -> None:
    """Before anything is asked."""
    with pytest.raises(
        UsageError, match="neither an environment variable nor a Prefect Secret block is called NOWHERE"
    ):
        bucket(host, "NOWHERE")
