"""What is done for one document or one query at once, by several models and without a run: the service, the Python client and the
command `vecferry search | ingest` stand on it.

    model_search     asks the search functions of a set of tables
    documents        documents with their chunks and vectors, as the tables hold them
    ingest           a document is cut, embedded and written
    opened_models    the models of a registry, each opened once in a process
    text_vectors     vectors of a few texts: kept ones are taken, others are made and kept
    purchasing       what is bought for them: at the account's rate, within a budget, and noted
"""
