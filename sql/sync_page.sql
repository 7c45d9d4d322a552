-- Run by vecferry inside a transaction: a page of the source, in the shape of the table it is compared with.
DROP TABLE IF EXISTS pg_temp.page;
CREATE TEMPORARY TABLE page ON COMMIT DROP AS SELECT * FROM :"schema".:"table" LIMIT 0;
