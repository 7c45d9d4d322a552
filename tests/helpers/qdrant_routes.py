"""Which method and path is which operation of Qdrant's API, and from which version on."""

import re

VERSIONS = ("1.16", "1.17", "1.18", "1.19")
C = "/collections/{collection_name}"
ROUTES = [
    ("GET", "/", "root"),
    ("GET", "/telemetry", "telemetry"),
    ("GET", "/healthz", "healthz"),
    ("GET", "/livez", "livez"),
    ("GET", "/readyz", "readyz"),
    ("GET", "/cluster", "cluster_status"),
    ("GET", "/collections", "get_collections"),
    ("GET", "/aliases", "get_collections_aliases"),
    ("POST", "/collections/aliases", "update_aliases"),
    ("GET", C, "get_collection"),
    ("PUT", C, "create_collection"),
    ("PATCH", C, "update_collection"),
    ("DELETE", C, "delete_collection"),
    ("GET", f"{C}/exists", "collection_exists"),
    ("GET", f"{C}/aliases", "get_collection_aliases"),
    ("GET", f"{C}/optimizations", "get_optimizations"),
    ("GET", f"{C}/cluster", "collection_cluster_info"),
    ("PUT", f"{C}/index", "create_field_index"),
    ("DELETE", f"{C}/index/{{field_name}}", "delete_field_index"),
    ("PUT", f"{C}/vectors/{{vector_name}}", "create_vector_name"),
    ("DELETE", f"{C}/vectors/{{vector_name}}", "delete_vector_name"),
    ("GET", f"{C}/snapshots", "list_snapshots"),
    ("POST", f"{C}/snapshots", "create_snapshot"),
    ("PUT", f"{C}/snapshots/recover", "recover_from_snapshot"),
    ("GET", f"{C}/snapshots/{{snapshot_name}}", "get_snapshot"),
    ("DELETE", f"{C}/snapshots/{{snapshot_name}}", "delete_snapshot"),
    ("POST", f"{C}/points", "get_points"),
    ("PUT", f"{C}/points", "upsert_points"),
    ("GET", f"{C}/points/{{id}}", "get_point"),
    ("POST", f"{C}/points/delete", "delete_points"),
    ("PUT", f"{C}/points/vectors", "update_vectors"),
    ("POST", f"{C}/points/vectors/delete", "delete_vectors"),
    ("POST", f"{C}/points/payload", "set_payload"),
    ("PUT", f"{C}/points/payload", "overwrite_payload"),
    ("POST", f"{C}/points/payload/delete", "delete_payload"),
    ("POST", f"{C}/points/payload/clear", "clear_payload"),
    ("POST", f"{C}/points/batch", "batch_update"),
    ("POST", f"{C}/points/scroll", "scroll_points"),
    ("POST", f"{C}/points/count", "count_points"),
    ("POST", f"{C}/points/query", "query_points"),
    ("POST", f"{C}/points/query/batch", "query_batch_points"),
    ("POST", f"{C}/facet", "facet"),
]
SINCE = {"create_vector_name": (1, 18), "delete_vector_name": (1, 18), "get_optimizations": (1, 17)}
OPEN = {"root", "healthz", "livez", "readyz"}
"""Answered without a key."""
READS = {name for method, _, name in ROUTES if method == "GET"} | {
    "get_points",
    "scroll_points",
    "count_points",
    "query_points",
    "query_batch_points",
    "facet",
}
COMPILED = [
    (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "$"), operation)
    for method, path, operation in ROUTES
]


def routed(method: str, path: str, version: tuple[int, int]) -> tuple[str, dict[str, str]] | None:
    """The operation, and what its path names, still quoted. None where this version has no such path."""
    path = path.rstrip("/") or "/"
    for its_method, pattern, operation in COMPILED:
        if its_method == method and (match := pattern.match(path)):
            return (operation, match.groupdict()) if SINCE.get(operation, version) <= version else None
    return None
