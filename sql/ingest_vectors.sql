-- Run by vecferry: vectors that one model has made of chunks; what it made of them before is replaced.
INSERT INTO :"schema".:"table" (:"chunk", :"model", :"column")
SELECT CAST(t.key AS :key_type), CAST(:'id' AS :model_type), t.vector
FROM unnest(CAST(:keys AS text[]), CAST(:vectors AS :type[])) AS t (key, vector)
ON CONFLICT (:"chunk", :"model") DO UPDATE SET :"column" = excluded.:"column";
