-- Append or schedule envelopes of one priority that may be there already: their publisher lost the reply. It has looked
-- through the lane in pages; this script looks at what has come since.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed lane and fields)
-- KEYS[4] counts (HASH)
-- ARGV[1] the newest entry id that was looked at, '' for none  ARGV[2] how many entries may have come since
-- ARGV[3] about how many bytes of them  ARGV[4] priority
-- ARGV[5…] per envelope ten values: delay in ms and ms since the epoch at the earliest, 0 for none, then field, value, …
-- with the event id as the fourth
-- Returns {the newest entry id of the lane, '' for none; per envelope ms until it is due, 0 if it was stored at once, -1
-- if it was there}; or {} if too much has come since: nothing was done, and there is more to look at.
local now, wanted, there = server_ms(), {}, {}
for i = 5, #ARGV, 10 do
  wanted[ARGV[i + 3]] = ARGV[i + 3]
end
local since = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local looked = look(KEYS[1], '+', since, tonumber(ARGV[2]), tonumber(ARGV[3]), wanted)
if looked[1] ~= '' then
  return {}
end
for _, id in ipairs(looked[5]) do
  there[id] = true
end
local newest = looked[4] ~= '' and looked[4] or ARGV[1]
local waits = {newest}
for i = 5, #ARGV, 10 do
  local due, id = math.max(now + ARGV[i], tonumber(ARGV[i + 1])), ARGV[i + 3]
  if there[id] or redis.call('ZSCORE', KEYS[2], id) then
    waits[#waits + 1] = -1
  else
    if due > now then
      keep(KEYS[2], KEYS[3], KEYS[4], due, id, cmsgpack.pack({tonumber(ARGV[4]), unpack(ARGV, i + 2, i + 9)}))
    else
      waits[1] = redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 2, i + 9))
    end
    there[id] = true
    waits[#waits + 1] = due - now
  end
end
return waits
