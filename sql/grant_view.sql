-- Run by vecferry: who reads the tables reads which models they serve.
GRANT SELECT ON :"schema".:"view" TO :role;
