-- Run by vecferry: the key of one row a chunk, before it takes its place again.
CREATE UNIQUE INDEX CONCURRENTLY :"index" ON :"schema".:"table" (:"chunk");
