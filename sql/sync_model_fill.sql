-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v column=embedding_768 -v chunk=chunk -v model=model -v number=7 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v key=b.id -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -v live_schema=public -v live=docs -v side=docs__2 -v keys=k1 -f sql/sync_model_fill.sql
-- The vectors of one model, where the text is still the one that was embedded; then what is known of each row. A row that is there
-- with the same vector is not written again. Nobody deletes a row of the live table meanwhile.
WITH page AS (
    SELECT * FROM :page
), guarded AS (
    SELECT :key AS chunk, p.* FROM page AS p JOIN :"live_schema".:"live" AS b ON :same
    WHERE :hash IS NOT DISTINCT FROM p.content_hash ORDER BY :key FOR KEY SHARE OF b
), written AS (
    INSERT INTO :"schema".:"table" AS v (:"chunk", :"model", :"column") SELECT chunk, :number, embedding FROM guarded
    ON CONFLICT (:"chunk", :"model") DO UPDATE SET :"column" = excluded.:"column" WHERE v.:"column" IS DISTINCT FROM excluded.:"column"
)
INSERT INTO vecferry.:"side" (:keys, content_hash) SELECT :keys, content_hash FROM guarded
ON CONFLICT (:keys) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL;
