"""Snapshots of a collection: an archive of its folder, listed, fetched, deleted, and put back."""

import hashlib
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tests.helpers.qdrant_engine import JSON, Refused
from tests.helpers.qdrant_state import Request, Served, at
from tests.helpers.qdrant_storage import opened


def folder(served: Served, collection: str) -> Path:
    return served.storage.folder / "snapshots" / quote(collection, safe="")


def described(path: Path) -> JSON:
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": path.name, "creation_time": made, "size": path.stat().st_size, "checksum": checksum}


def list_snapshots(served: Served, request: Request) -> list[JSON]:
    return [described(path) for path in sorted(folder(served, at(served, request).name).glob("*.snapshot"))]


def create_snapshot(served: Served, request: Request) -> JSON:
    collection = at(served, request)
    collection.shard.flush()
    target = folder(served, collection.name)
    target.mkdir(parents=True, exist_ok=True)
    made = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S-%f")
    path = target / f"{collection.name}-1-{made}.snapshot"
    # The engine's files have holes of many megabytes, which this tar leaves holes.
    subprocess.run(["tar", "--sparse", "--create", "--file", path, "--directory", collection.folder, "."], check=True)
    return described(path)


def named(served: Served, request: Request) -> Path:
    name = request.names["snapshot_name"]
    path = folder(served, at(served, request).name) / name
    if "/" in name or not path.exists():
        raise Refused(404, f"Not found: Snapshot {name} not found")
    return path


def get_snapshot(served: Served, request: Request) -> bytes:
    return named(served, request).read_bytes()


def delete_snapshot(served: Served, request: Request) -> bool:
    named(served, request).unlink()
    return True


def recover_from_snapshot(served: Served, request: Request) -> bool:
    """Puts a collection back from an archive at a ``file:`` location, or at this server's own address."""
    location = urlsplit(request.body["location"])
    name = request.names["collection_name"]
    path = Path(unquote(location.path))
    if location.scheme != "file":
        path = folder(served, unquote(location.path.split("/")[2])) / unquote(path.name)
    if not path.is_file():
        raise Refused(400, f"Wrong input: Snapshot file {path.name} does not exist")
    if (wanted := request.body.get("checksum")) and wanted != described(path)["checksum"]:
        raise Refused(400, f"Checksum mismatch: expected {wanted}, actual {described(path)['checksum']}")
    name = served.storage.aliases.get(name, name)
    target = served.storage.folder / "collections" / quote(name, safe="")
    unpacked = served.storage.folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    tar = ["tar", "--extract", "--file", path, "--directory", unpacked]
    if subprocess.run(tar, check=False).returncode or not (unpacked / "config.json").exists():
        raise Refused(400, f"Wrong input: Snapshot file {path.name} is no snapshot of a collection")
    if name in served.storage.collections:
        served.storage.collections.pop(name).shard.close()
        shutil.rmtree(target)
    unpacked.replace(target)
    served.storage.collections[name] = opened(name, target)
    return True
