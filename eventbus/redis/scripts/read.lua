-- Take new entries without waiting: each lane its share, then what is left goes to the most urgent.
-- KEYS[1…10] lanes, most urgent first
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] credit  ARGV[4…13] each lane's share
-- Returns {{entry, fields}, …}. A lane without the group is an error only if no other lane gave anything: what was read
-- is the consumer's now, and must reach it.
local left, taken, empty, failed = tonumber(ARGV[3]), {}, {}, nil

local function take(lane, count)
  count = math.min(count, left)
  if count < 1 or empty[lane] then
    return
  end
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[lane], '>')
  if reply and reply.err then
    failed, empty[lane] = reply, true
    return
  end
  local entries = reply and reply[1][2] or {}
  for _, entry in ipairs(entries) do
    taken[#taken + 1] = {named(lane, entry[1]), entry[2]}
  end
  left = left - #entries
  empty[lane] = #entries < count
end

for lane = 1, #KEYS do
  take(lane, tonumber(ARGV[3 + lane]))
end
for lane = 1, #KEYS do
  take(lane, left)
end
if failed and #taken == 0 then
  return failed
end
return taken
