-- Append events of a session to one stream, behind a cursor: what is there already is passed over.
-- KEYS[1] cursor (STRING: position below which all is there)  KEYS[2…11] lanes, by priority
-- ARGV[1] ms at which this run began  ARGV[2] ms for which it holds  ARGV[3] position that the cursor must have reached
-- ARGV[4] position that it is to reach  ARGV[5…] per event ten values: position, priority, then field, value, …
-- Returns the cursor as it was, or -1 if the run is too old: by now nobody may remember what it has appended.
if server_ms() - ARGV[1] > tonumber(ARGV[2]) then
  return -1
end
local cursor = tonumber(redis.call('GET', KEYS[1]) or 0)
if cursor < tonumber(ARGV[3]) or cursor >= tonumber(ARGV[4]) then
  return cursor
end
-- A lane that refuses is noticed before anything is written: half of a portion would be appended again and again.
local taken = {}
for i = 5, #ARGV, 10 do
  local lane = tonumber(ARGV[i + 1]) <= 10 and KEYS[1 + ARGV[i + 1]]
  if not lane then
    return {err = 'ERR priority ' .. ARGV[i + 1] .. ' has no lane'}
  end
  if not taken[lane] then
    local kind = redis.call('TYPE', lane)['ok']
    if kind ~= 'stream' and kind ~= 'none' then
      return {err = 'WRONGTYPE ' .. lane .. ' is a ' .. kind .. ' and no stream'}
    end
    taken[lane] = true
  end
end
for i = 5, #ARGV, 10 do
  if tonumber(ARGV[i]) >= cursor then
    redis.call('XADD', KEYS[1 + ARGV[i + 1]], '*', unpack(ARGV, i + 2, i + 9))
  end
end
redis.call('SET', KEYS[1], ARGV[4])
return cursor
