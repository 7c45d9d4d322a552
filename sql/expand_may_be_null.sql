-- Run by vecferry: a row of another model has its vector in another column.
ALTER TABLE :"schema".:"table" ALTER COLUMN :"column" DROP NOT NULL;
