-- The token that opened a session: the session holds only while that one does. Absent: a password opened it. What opened
-- the sessions from before this column is not known, so they end.
DELETE FROM sessions;
ALTER TABLE sessions ADD COLUMN token BLOB REFERENCES tokens (hash);
