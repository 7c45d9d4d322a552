-- Run by vecferry: a foreign key that stepped aside is there again; what it holds is read first.
ALTER TABLE :"schema".:"table" ADD CONSTRAINT :"constraint" :definition;
