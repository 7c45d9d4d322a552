-- Run by vecferry: counts the vectors of each model, and the chunks, as they come and go. The triggers fire under replication too.
CREATE OR REPLACE TRIGGER :"insert" AFTER INSERT ON :"schema".:"table" REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION vecferry.count_coverage(:'set', :'role');
CREATE OR REPLACE TRIGGER :"delete" AFTER DELETE ON :"schema".:"table" REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION vecferry.count_coverage(:'set', :'role');
CREATE OR REPLACE TRIGGER :"update" AFTER UPDATE ON :"schema".:"table"
    FOR EACH ROW WHEN (:changed) EXECUTE FUNCTION vecferry.count_coverage(:'set', :'role');
CREATE OR REPLACE TRIGGER :"truncate" AFTER TRUNCATE ON :"schema".:"table"
    FOR EACH STATEMENT EXECUTE FUNCTION vecferry.count_coverage(:'set', :'role');
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"insert";
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"delete";
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"update";
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"truncate";
