-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v same='b.chunk = p.k1 AND b.model = 7' -v side=docs__2 -v known='s.k1 = p.k1' -v page="(VALUES ('a')) AS p (k1)" -f sql/sync_model_empty.sql
-- Takes the vectors of one model away from rows of which something is known.
DELETE FROM :"schema".:"table" AS b USING :page JOIN vecferry.:"side" AS s ON :known WHERE :same;
