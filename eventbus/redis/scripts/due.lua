-- Which events are scheduled. Reads only.
-- KEYS[1] due (ZSET: event id by ms)  ARGV[1…] event ids
-- Returns, for each, ms until it is due, 1 if it is overdue, -1 if it is not scheduled.
local now, waits = server_ms(), {}
for i, id in ipairs(ARGV) do
  local due = redis.call('ZSCORE', KEYS[1], id)
  waits[i] = due and math.max(1, due - now) or -1
end
return waits
