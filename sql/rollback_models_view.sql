-- Run by vecferry: the reverse of expand_models_view.sql.
DROP VIEW IF EXISTS :"schema".:"view";
