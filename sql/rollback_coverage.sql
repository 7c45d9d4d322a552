-- Run by vecferry: the reverse of expand_coverage.sql.
DROP TRIGGER IF EXISTS :"insert" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"delete" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"update" ON :"schema".:"table";
DROP TRIGGER IF EXISTS :"truncate" ON :"schema".:"table";
