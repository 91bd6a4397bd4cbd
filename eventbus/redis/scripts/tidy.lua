-- Trim what every group has settled, forget consumers that are gone, bound the dead letters.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH: those that must have settled an entry)  KEYS[12] dead
-- ARGV[1] ms that settled entries are kept  ARGV[2] settled entries a lane keeps at the most, about
-- ARGV[3] ms below which none is trimmed: whoever repeats a publish must find what he stored
-- ARGV[4] ms after which an idle consumer without entries is forgotten  ARGV[5] the consumer under which entries rest
-- ARGV[6] ms that dead letters are kept  ARGV[7] dead letters that are kept at the most
-- ARGV[8] '1': look for such consumers, too
-- Returns {entries trimmed, consumers forgotten, dead letters dropped, {groups that are missing}, entries left}.
-- A lane that lacks a group is not trimmed: the group will come back at its beginning, and must find everything.
local now = server_ms()
local known = redis.call('HKEYS', KEYS[11])
local trimmed, left, forgotten, missing = 0, 0, {}, {}

-- The smaller of two entry ids; ids are 'ms-sequence'.
local function smaller(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if tonumber(a_ms) ~= tonumber(b_ms) then
    return tonumber(a_ms) < tonumber(b_ms) and a or b
  end
  return tonumber(a_seq) < tonumber(b_seq) and a or b
end

local function after(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return ms .. '-' .. string.format('%.0f', sequence + 1)
end

-- The first id that some group has not settled, or nil if a group that should be there is not.
local function first_unsettled(lane)
  local there, bound = {}, nil
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', lane)) do
    local group = pairs_of(flat)
    there[group.name] = true
    local open = after(group['last-delivered-id'])
    if group.pending > 0 then
      open = redis.call('XPENDING', lane, group.name)[2]
    end
    bound = bound and smaller(bound, open) or open
  end
  for _, name in ipairs(known) do
    if not there[name] then
      missing[name], bound = true, nil
    end
  end
  return bound
end

local function ms_of(entry)
  return tonumber(string.match(entry[1], '^(%d+)-'))
end

-- The id before which settled entries are old enough, or too many. Where they are too many, their number is taken to
-- have grown evenly: a few rounds come close, and nothing has to be counted.
local function first_kept(lane, length)
  local cut = now - ARGV[1]
  local most = tonumber(ARGV[2])
  if length > most then
    local oldest = ms_of(redis.call('XRANGE', lane, '-', '+', 'COUNT', 1)[1])
    local newest = ms_of(redis.call('XREVRANGE', lane, '+', '-', 'COUNT', 1)[1])
    cut = math.max(cut, oldest + (newest + 1 - oldest) * (1 - most / length))
  end
  return string.format('%.0f-0', math.max(0, math.min(cut, now - ARGV[3])))
end

local function forget_consumers(lane)
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', lane)) do
    local group = pairs_of(flat).name
    for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', lane, group)) do
      local consumer = pairs_of(info)
      if consumer.pending == 0 and consumer.name ~= ARGV[5] and consumer.idle > tonumber(ARGV[4]) then
        redis.call('XGROUP', 'DELCONSUMER', lane, group, consumer.name)
        forgotten[group .. ' ' .. consumer.name] = true
      end
    end
  end
end

for i = 1, 10 do
  local length = redis.call('XLEN', KEYS[i])
  if ARGV[8] == '1' and (length > 0 or redis.call('EXISTS', KEYS[i]) == 1) then
    forget_consumers(KEYS[i])
  end
  left = left + length
  if length > 0 then
    local bound = first_unsettled(KEYS[i])
    if bound then
      trimmed = trimmed + redis.call('XTRIM', KEYS[i], 'MINID', '=', smaller(bound, first_kept(KEYS[i], length)))
    end
  end
end

local dropped = 0
if redis.call('EXISTS', KEYS[12]) == 1 then
  dropped = redis.call('XTRIM', KEYS[12], 'MINID', '=', string.format('%.0f', math.max(0, now - ARGV[6])))
    + redis.call('XTRIM', KEYS[12], 'MAXLEN', '=', ARGV[7])
end
local function keys_of(set)
  local found = {}
  for key in pairs(set) do
    found[#found + 1] = key
  end
  return found
end

return {trimmed, #keys_of(forgotten), dropped, keys_of(missing), left - trimmed}
