-- For what somebody is let in, and until when. What was let in before may do everything, as it could.
ALTER TABLE token ADD COLUMN streams TEXT NOT NULL DEFAULT '[]';
ALTER TABLE token ADD COLUMN until INTEGER;
