-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v column=embedding -v chunk=chunk -v model=model -v number=6 -v page="(VALUES ('a', '\x00'::bytea, NULL::vector)) AS p (k1, content_hash, embedding)" -v key=b.id -v same='p.k1 = b.id' -v hash='sha256(b.document::bytea)' -v live_schema=public -v live=docs -f sql/sync_model_fill_old.sql
-- The vectors of the model before, after a cutover, so that it can be gone back to and goes on being searched. A row whose text
-- has none loses its vector.
WITH page AS (
    SELECT * FROM :page
), guarded AS (
    SELECT :key AS chunk, p.* FROM page AS p JOIN :"live_schema".:"live" AS b ON :same
    WHERE :hash IS NOT DISTINCT FROM p.content_hash ORDER BY :key FOR KEY SHARE OF b
), gone AS (
    DELETE FROM :"schema".:"table" AS v USING guarded AS g
    WHERE v.:"chunk" = g.chunk AND v.:"model" = :number AND g.embedding IS NULL
)
INSERT INTO :"schema".:"table" AS v (:"chunk", :"model", :"column")
SELECT chunk, :number, embedding FROM guarded WHERE embedding IS NOT NULL
ON CONFLICT (:"chunk", :"model") DO UPDATE SET :"column" = excluded.:"column" WHERE v.:"column" IS DISTINCT FROM excluded.:"column";
