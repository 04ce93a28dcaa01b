-- Which change landed when. Of landings from before this table, when the change was last touched is the nearest that is known.
CREATE TABLE landings (
    repo TEXT NOT NULL,
    change INTEGER NOT NULL,
    branch TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (repo, change)
);
CREATE INDEX landings_of_branch ON landings (repo, branch, at, change);
INSERT INTO landings (repo, change, branch, at)
SELECT repo, number, target, updated_at FROM changes WHERE state = 'landed';
