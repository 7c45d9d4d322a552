-- Run by vecferry: what a document says from now on.
UPDATE :"schema".:"table" AS d SET :assignments WHERE d.:"key" = :value;
