-- psql "$DATABASE_URL" -v side=docs__2 -v schema=public -v table=docs -v same='k1 = b.id' -f sql/grant_rows_alike.sql
-- Where policies decide who sees which row of the live table, they decide it for the vectors beside it too.
ALTER TABLE vecferry.:"side" ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS as_the_live_table ON vecferry.:"side";
CREATE POLICY as_the_live_table ON vecferry.:"side" FOR SELECT
    USING (EXISTS (SELECT 1 FROM :"schema".:"table" AS b WHERE :same));
