"""Files in a bucket of Supabase Storage. ``root`` is the project's URL; a reference is the name of an object, or any of the URLs
that Supabase gives for it."""

import json
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

import httpx

from tasks.base.errors import FatalError
from tasks.contents.image.patience import Later
from tasks.contents.image.references import shown
from tasks.contents.image.site import climbs
from tasks.contents.image.web import Answer, Web
from tasks.embedders.interface import RowError

_OBJECT = "/storage/v1/object"
_OF_KEY = {"InvalidJWT", "AccessDenied", "InvalidUploadSignature", "TenantNotFound", "Unauthorized", "401", "403"}
_OF_BUCKET = {"NoSuchBucket", "Bucket not found"}
_OF_OBJECT = {"NoSuchKey", "not_found", "404"}
"""Supabase's "Storage error codes", and what it said before: HTTP 400 with ``statusCode`` in the body."""


@dataclass(frozen=True)
class Bucket:
    """With a key any bucket, else a public one."""

    root: str
    bucket: str
    key_name: str
    """How the parameter calls the key; "" without one."""
    web: Web

    def read(self, reference: str, once: bool = False) -> bytes | RowError:
        name, object_name = shown(reference), self._object(reference)
        if object_name is None or object_name.startswith("/") or climbs(object_name):
            return RowError("escapes", f"{name} is not in the bucket {self.bucket} of {self.root}")
        door = "authenticated" if self.key_name else "public"
        text = f"{self.root.rstrip('/')}{_OBJECT}/{door}/{quote(self.bucket, safe='')}/{quote(object_name)}"
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            return RowError("reference", f"{name} makes no URL: {error}")
        return self.web.get(name, url, lambda answer: self._answered(name, answer), once)

    def host(self, reference: str) -> str:
        return self.root

    def _object(self, reference: str) -> str | None:
        """Its name; None where the reference is a URL of something else."""
        if "://" not in reference:
            return reference
        prefix = (
            re.escape(f"{self.root.rstrip('/')}{_OBJECT}")
            + rf"/(?:(?:public|authenticated|sign)/)?{re.escape(self.bucket)}/"
        )
        match = re.match(prefix, reference)
        return unquote(reference[match.end() :].partition("?")[0]) if match else None

    def _answered(self, name: str, answer: Answer) -> RowError | Later | None:
        try:
            words = json.loads(answer.body)
            marks = {str(words.get(field)) for field in ("code", "statusCode", "error", "message")}
        except (ValueError, AttributeError):  # of what stands before it, such as a cache: judged by its status
            words, marks = {}, set()
        told = " ".join(str(words.get("message") or answer.status).split())[:200]
        if marks & _OF_BUCKET:
            raise FatalError(
                f"images.bucket: {self.root} has no{'' if self.key_name else ' public'} bucket {self.bucket}"
            )
        if answer.status in (401, 403) or marks & _OF_KEY:
            key = f"images.service_key: {self.key_name} is not accepted by" if self.key_name else "images.bucket:"
            raise FatalError(f"{key} {self.root}: {told}")
        if marks & _OF_OBJECT:
            return RowError("missing", f"{name}: the bucket {self.bucket} has no such object ({told})")
        return None

    def stop(self) -> None:
        self.web.stop()

    def close(self) -> None:
        self.web.close()


def headers(key: str) -> dict[str, str]:
    """A secret key goes into a header of its own; one of before 2025 is a JWT, and goes into both."""
    return {"apikey": key, **({"Authorization": f"Bearer {key}"} if key.startswith("eyJ") else {})}
