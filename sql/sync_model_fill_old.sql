-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v column=embedding -v chunk=chunk -v model=model -v number=6 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v key=b.id -v same='p.k1 = b.id' -v vector='v.chunk = s.k1 AND v.model = 6' -v hash='sha256(b.document::bytea)' -v live_schema=public -v live=docs -v side=docs__2 -v keys=k1 -v id=p.k1 -v far=0.001 -f sql/sync_model_fill_old.sql
-- The vectors of the model before, after a cutover, so that it can be gone back to and goes on being searched; as those of the new
-- model are written. A row whose text has none loses its vector.
WITH page AS (
    SELECT * FROM :page
), guarded AS MATERIALIZED (
    SELECT :key AS chunk, p.* FROM page AS p JOIN :"live_schema".:"live" AS b ON :same
    WHERE :hash IS NOT DISTINCT FROM p.content_hash ORDER BY :key FOR UPDATE OF b SKIP LOCKED
), gone AS (
    DELETE FROM :"schema".:"table" AS v USING guarded AS g
    WHERE v.:"chunk" = g.chunk AND v.:"model" = :number AND g.embedding IS NULL
), put AS (
    INSERT INTO :"schema".:"table" AS v (:"chunk", :"model", :"column")
    SELECT chunk, :number, embedding FROM guarded WHERE embedding IS NOT NULL
    ON CONFLICT (:"chunk", :"model") DO UPDATE SET :"column" = excluded.:"column"
    WHERE v.:"column" IS DISTINCT FROM excluded.:"column"
        AND ((v.:"column" <=> excluded.:"column" <= :far) IS NOT TRUE
            OR EXISTS (SELECT FROM vecferry.:"side" AS s WHERE :vector AND s.old_written = v.xmin))
    RETURNING v.:"chunk" AS chunk, v.xmin AS written, v.xmax = 0 AS inserted
), noted AS (
    INSERT INTO vecferry.:"side" AS w (:keys, content_hash, old_written)
    SELECT :keys, content_hash, put.written FROM guarded JOIN put USING (chunk) WHERE inserted
    ON CONFLICT (:keys) DO UPDATE SET old_written = excluded.old_written
)
SELECT :id AS id FROM guarded AS p;
