-- The key of the effect that told it: whoever owes that says when the cause is over. Absent: nobody can.
ALTER TABLE alerts ADD COLUMN cause TEXT;
