-- Runs that a landing rests on: they are kept for ever. Of landings from before this table, whatever ran for the change;
-- an open one may be landing just now.
CREATE TABLE proofs (
    run TEXT PRIMARY KEY
);
INSERT INTO proofs (run)
SELECT runs.id FROM runs JOIN changes ON changes.repo = runs.repo AND changes.number = runs.change
WHERE changes.state IN ('landed', 'open');
