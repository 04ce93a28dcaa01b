-- The token by which a token was made: it ends with that one. Absent: by none, or not known, as for those from before this
-- column.
ALTER TABLE tokens ADD COLUMN made_by INTEGER;
