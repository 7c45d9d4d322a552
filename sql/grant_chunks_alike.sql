-- Run by vecferry: where policies decide who sees which chunk, they decide it for its vectors too.
ALTER TABLE :"schema".:"table" ENABLE ROW LEVEL SECURITY;
CREATE POLICY as_the_chunks ON :"schema".:"table"
    USING (EXISTS (SELECT 1 FROM :"chunks_schema".:"chunks" AS c WHERE c.:"key" = :"chunk"));
