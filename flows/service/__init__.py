"""The HTTP service of ``vecferry serve``: embeddings, search and documents for applications that do not run Python."""
