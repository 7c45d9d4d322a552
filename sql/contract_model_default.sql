-- Run by vecferry: a row names its model from now on, once the one that was meant without a name is gone.
ALTER TABLE :"schema".:"table" ALTER COLUMN :"model" DROP DEFAULT;
