-- Run by vecferry: a table of models gives its name to the view of the registry, which has its rows.
ALTER TABLE :"schema".:"table" RENAME TO :"renamed";
