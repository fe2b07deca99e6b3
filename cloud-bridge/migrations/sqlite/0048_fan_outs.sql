-- What a command was a part of, where many devices were asked at once.
ALTER TABLE command ADD COLUMN fan_out INTEGER;
CREATE INDEX command_by_fan_out ON command (fan_out, device) WHERE fan_out IS NOT NULL;

-- The few answers that are large: of a device with many commands they are found without looking at the others.
CREATE INDEX command_with_diagnostics ON command (device, seq) WHERE result LIKE '%"diagnostics":{%';
