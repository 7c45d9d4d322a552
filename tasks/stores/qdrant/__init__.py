"""Qdrant, as a server or as a directory of qdrant-client's local mode."""
