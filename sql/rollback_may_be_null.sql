-- Run by vecferry: the reverse of expand_may_be_null.sql.
ALTER TABLE :"schema".:"table" ALTER COLUMN :"column" SET NOT NULL;
