-- psql "$DATABASE_URL" -v schema=public -v table=embeddings -v vector='v.chunk = s.k1 AND v.model = 7' -v side=docs__2 -v others=false -v rows=1000 -f sql/contract_model_vectors.sql
-- Deletes some of the vectors of one model that a run has brought in, but for those that another run knows too, and what others have
-- written since.
DELETE FROM :"schema".:"table" AS v WHERE v.ctid = ANY (ARRAY(
    SELECT v.ctid FROM vecferry.:"side" AS s JOIN :"schema".:"table" AS v ON :vector
    WHERE s.written = v.xmin AND NOT (:others) LIMIT :rows
));
