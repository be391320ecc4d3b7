-- SQLite's outbox gets the places that this one has had from the first; nothing changes here.
SELECT 1;
