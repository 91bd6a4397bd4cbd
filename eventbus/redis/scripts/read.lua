-- Take new entries without waiting: each lane its share, then what is left goes to the most urgent.
-- KEYS[1…10] lanes, most urgent first
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] credit  ARGV[4…13] each lane's share
-- KEYS[11] of an ordered group: order (HASH: see ordering.lua). What waits behind another of its key is not returned.
-- Returns {{entry, fields}, …}; for an ordered group {{{entry, fields}, …}, how many were read, {each lane's last id that
-- was read, if there was less than the credit}}. A lane without the group is an error only if no other lane gave anything: what was read
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
    local name = named(lane, entry[1])
    if not KEYS[11] or line_up(KEYS[11], KEYS[lane], ARGV[1], name, entry[2]) then
      taken[#taken + 1] = {name, entry[2]}
    end
  end
  left = left - #entries
  empty[lane] = #entries < count
end

for lane = 1, 10 do
  take(lane, tonumber(ARGV[3 + lane]))
end
for lane = 1, 10 do
  take(lane, left)
end
local read = tonumber(ARGV[3]) - left
if failed and read == 0 then
  return failed
end
if not KEYS[11] then
  return taken
end
local last = {}
for lane = 1, left > 0 and not failed and 10 or 0 do
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[lane])) do
    local group = pairs_of(flat)
    if group.name == ARGV[1] then
      last[lane] = group['last-delivered-id']
    end
  end
end
return {taken, read, last}
