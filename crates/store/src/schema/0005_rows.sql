-- A cell's large row, the graph of a run, lay in one tree with its small ones: whoever passed it on the way to another row
-- read the whole of it.
ALTER TABLE cell_rows RENAME TO cell_rows_by_key;
CREATE TABLE cell_rows (
    cell TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (cell, key)
);
INSERT INTO cell_rows (cell, key, value) SELECT cell, key, value FROM cell_rows_by_key;
DROP TABLE cell_rows_by_key;
