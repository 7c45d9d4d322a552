-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v column=embedding -v chunk=chunk -v model=model -v number=7 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v key=b.id -v same='p.k1 = b.id' -v vector='v.chunk = s.k1 AND v.model = 7' -v hash='sha256(b.document::bytea)' -v live_schema=public -v live=docs -v side=docs__2 -v keys=k1 -v id=w.k1 -v far=0.001 -f sql/sync_model_fill.sql
-- The vectors of one model, where the text is still the one that was embedded; then what is known of each row, and the transaction that
-- wrote its vector where the run has brought it in. One of others' that is the model's own stays as it is. Rows that somebody has at
-- hand, or whose vectors he writes, are passed by, and others leave those alone that are not. Gives the rows that are right now.
WITH page AS (
    SELECT * FROM :page
), guarded AS MATERIALIZED (
    SELECT :key AS chunk, p.* FROM page AS p JOIN :"live_schema".:"live" AS b ON :same
    WHERE :hash IS NOT DISTINCT FROM p.content_hash ORDER BY :key FOR UPDATE OF b SKIP LOCKED
), own AS MATERIALIZED (
    SELECT :keys FROM guarded JOIN vecferry.:"side" AS s USING (:keys) JOIN :"schema".:"table" AS v ON :vector
    WHERE s.written = v.xmin
), put AS (
    INSERT INTO :"schema".:"table" AS v (:"chunk", :"model", :"column") SELECT chunk, :number, embedding FROM guarded
    ON CONFLICT (:"chunk", :"model") DO UPDATE SET :"column" = excluded.:"column"
    WHERE v.:"column" IS DISTINCT FROM excluded.:"column"
        AND ((v.:"column" <=> excluded.:"column" <= :far) IS NOT TRUE
            OR EXISTS (SELECT FROM vecferry.:"side" AS s WHERE :vector AND s.written = v.xmin))
    RETURNING v.:"chunk" AS chunk, v.xmin AS written, v.xmax = 0 AS inserted
), noted AS (
    INSERT INTO vecferry.:"side" AS w (:keys, content_hash, written)
    SELECT :keys, content_hash, CASE WHEN inserted OR (:keys) IN (TABLE own) THEN put.written END
    FROM guarded LEFT JOIN put USING (chunk)
    ON CONFLICT (:keys) DO UPDATE SET content_hash = excluded.content_hash, refused = NULL,
        written = coalesce(excluded.written, w.written)
    RETURNING :id AS id
)
SELECT id FROM noted;
