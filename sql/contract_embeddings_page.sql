-- Run by vecferry, until nothing is left: the vectors of a model that was retired go page by page, so that no lock lasts.
DELETE FROM :"schema".:"table" WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM :"schema".:"table" WHERE :"model"::text = :'id' LIMIT :rows));
