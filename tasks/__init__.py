"""The stages of a migration, in its order, and what they stand on.

    begin       freeze the plan of a new run, or take up the one there is
    load        ``expand`` makes the shadows, before anything is read; ``load`` fills them, batch by batch, after the snapshot
    snapshot    the source as Parquet parts with checksums
    index       what is searched
    catch_up    what changed at the source meanwhile
    verify      what must hold before the switch
    cutover     the switch; its ``rollback``, and ``contract``, after which there is no way back
    restore     a snapshot back into its source's kind of store

    planning    what a run would do, take and cost; writes nothing
    checks      what verification looks at, and the report
    shadows     new vectors until the switch: made, filled, indexed, followed, compared, switched; one adapter a kind of place
    serving     one document or one query at once, by several models, without a run
    runs        what is known of a run: plan, ledger, batches, vectors that are kept, spending, the registry of models
    stores      what records live in; one adapter a store
    contents    what of a record a model is given; one adapter a kind of content
    embedders   models; one adapter a provider
    base        errors, settings, files, retries, words

Each folder imports only those below it, and a stage no vendor's. docs/how-it-works.md has the words, the picture and the promises.
"""
