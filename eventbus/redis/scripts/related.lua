-- The events of a correlation id among the newest of a stream's entries and the first of what it keeps back. Reads only.
-- KEYS[1…10] lanes  KEYS[11] due (ZSET: event id by ms)  KEYS[12] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] correlation id  ARGV[2] the same as an attribute, as `meta` has it
-- ARGV[3] entries of each lane that are looked at  ARGV[4] scheduled events that are
-- ARGV[5] bytes of data with which an event is told of; of a larger one none are
-- Returns {{ms until it is due, -1 for an entry; fields}, …}.
local found = {}

local function look(fields, wait)
  if #fields == 8 and (fields[2] == ARGV[1] or string.find(fields[6], ARGV[2], 1, true)) then
    if #fields[8] > tonumber(ARGV[5]) then
      fields[8] = ''
    end
    found[#found + 1] = {wait, fields}
  end
end

for lane = 1, 10 do
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[lane], '+', '-', 'COUNT', ARGV[3])) do
    look(entry[2], -1)
  end
end
local now = server_ms()
local due = redis.call('ZRANGE', KEYS[11], 0, ARGV[4] - 1, 'WITHSCORES')
for i = 1, #due, 2 do
  local packed = redis.call('HGET', KEYS[12], due[i])
  if packed then
    look({select(2, unpack(cmsgpack.unpack(packed)))}, math.max(0, due[i + 1] - now))
  end
end
return found
