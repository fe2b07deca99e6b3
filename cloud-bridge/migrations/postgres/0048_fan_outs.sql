-- What a command was a part of, where many devices were asked at once.
ALTER TABLE command ADD COLUMN fan_out BIGINT;
CREATE INDEX command_by_fan_out ON command (fan_out) WHERE fan_out IS NOT NULL;
