-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v same='v.chunk = p.k1 AND v.model = 7' -v side=docs__2 -v known='s.k1 = p.k1' -v page="(VALUES ('a')) AS p (k1)" -v live_schema=public -v live=docs -v live_same='p.k1 = b.id' -v document=b.document -v meant=true -f sql/sync_model_empty.sql
-- Takes the vectors of one model away from rows of which something is known: all of them where a row says nothing by now, or what has
-- no vector; where it says something and is no more among those that are meant, the one that the run has brought in.
DELETE FROM :"schema".:"table" AS v
USING :page JOIN vecferry.:"side" AS s ON :known LEFT JOIN :"live_schema".:"live" AS b ON :live_same
WHERE :same AND (v.xmin = s.written OR :document IS NULL OR (:meant));
