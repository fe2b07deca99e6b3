-- A rollout's devices have rows of their own, and what was said of it as flags is its policy.
INSERT INTO record
SELECT 'member', r.key || '/' || d.value, json_object(
    'kind', 'member',
    'rollout', json_extract(r.body, '$.id'),
    'device', d.value,
    'wave', w.key,
    'place', json(CASE
        WHEN json_type(r.body, '$.before."' || d.value || '"') IS NULL THEN '{"at":"waiting","until":0}'
        WHEN json_extract(r.body, '$.phase.state') = 'stopped' THEN '{"at":"returned"}'
        WHEN json_extract(r.body, '$.results."' || d.value || '".outcome') <> 'confirmed' THEN '{"at":"returned"}'
        ELSE '{"at":"assigned"}' END),
    'before', json_extract(r.body, '$.before."' || d.value || '"'),
    'assigned', CASE WHEN json_type(r.body, '$.before."' || d.value || '"') IS NULL THEN NULL ELSE json_extract(r.body, '$.wave_started') END,
    'there', json('true'),
    'tries', 0,
    'result', json(json_extract(r.body, '$.results."' || d.value || '"')),
    'day', json('{}'), 'old', json('{}'), 'new', json('{}'))
FROM record AS r, json_each(r.body, '$.waves') AS w, json_each(w.value) AS d
WHERE r.kind = 'rollout';

UPDATE record SET body = json_remove(json_set(body,
    '$.ram_mb', 0,
    '$.to', json((SELECT json_object('devices', json_group_array(d.value)) FROM json_each(record.body, '$.waves') AS w, json_each(w.value) AS d)),
    '$.policy', json_object(
        'wave', json((SELECT json_group_array(json_object('size', CAST(upto AS TEXT))) FROM (
            SELECT max(1, sum(json_array_length(w.value)) OVER (ORDER BY w.key)) AS upto FROM json_each(record.body, '$.waves') AS w))),
        'trial', json_extract(body, '$.trial'),
        -- Nobody asked for the other gates then.
        'gates', json_object('max_failed', json_extract(body, '$.max_failed'), 'install_failed', NULL, 'errors', NULL, 'latency', NULL,
            'disagreement', NULL, 'drift', NULL, 'memory', NULL),
        'silence', json_object('deadline', json_extract(body, '$.deadline_s') || 's'),
        'at_once', json_extract(body, '$.at_once')),
    '$.by', 'admin', '$.approved', json('{}'), '$.waived', NULL, '$.allowance', json('[1.0, 0]'), '$.retries', 0, '$.judgement', NULL),
    '$.waves', '$.before', '$.results', '$.trial', '$.max_failed', '$.deadline_s', '$.at_once')
WHERE kind = 'rollout';
