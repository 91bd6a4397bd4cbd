-- Trim what every group has settled, forget consumers that are gone, bound the dead letters, look for what is missing.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH: those that must have settled an entry)  KEYS[12] dead
-- KEYS[13] counts (HASH: see accounts.lua; trimmed, entries ever; looked, ms of the last look for what is missing)
-- KEYS[14] due (ZSET)  KEYS[15] scheduled (HASH)
-- ARGV[1] ms that settled entries are kept  ARGV[2] settled entries a lane keeps at the most, about
-- ARGV[3] ms below which none is trimmed: whoever repeats a publish must find what he stored
-- ARGV[4] ms after which an idle consumer without entries is forgotten  ARGV[5] the consumer under which entries rest
-- ARGV[6] ms that dead letters are kept  ARGV[7] dead letters that each group keeps at the most
-- ARGV[8] '1': look for such consumers, too
-- ARGV[9] ms after the counting began for which what is missing was settled by workers that do not count
-- Returns {entries trimmed, consumers forgotten, dead letters dropped, {groups that are missing}, entries left,
-- {group, '' for the schedule, entries of it that are missing since the look before, …}}.
-- A lane that lacks a group is not trimmed: the group will come back at its beginning, and must find everything.
local now = server_ms()
local known = redis.call('HKEYS', KEYS[11])
local trimmed, left, forgotten, missing = 0, 0, {}, {}

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

local function group_of(letter)
  for i = #letter[2] - 1, 1, -2 do
    if letter[2][i] == 'dead.group' then
      return letter[2][i + 1]
    end
  end
  return ''
end

local function drop(letter)
  redis.call('XDEL', KEYS[12], letter[1])
  count_removed(KEYS[13], letter[1], group_of(letter), 'expired')
end

-- Those that have been kept for long enough, the oldest first, some at a time.
local function drop_old_letters()
  local last = string.format('%.0f', math.max(0, now - ARGV[6] - 1))
  local dropped, bytes = 0, 0
  while dropped < 500 and bytes < 4194304 do
    local old = redis.call('XRANGE', KEYS[12], '-', last, 'COUNT', 20)
    for _, letter in ipairs(old) do
      drop(letter)
      bytes = bytes + bytes_of(letter)
    end
    dropped = dropped + #old
    if #old < 20 then
      break
    end
  end
  return dropped
end

-- Those that a group has beyond its number. From the newest to the oldest the letters of each group are counted, some at
-- a time: `sweep` is where to go on, and sweep:GROUP what was counted so far.
local function drop_surplus_letters()
  if redis.call('XLEN', KEYS[12]) <= tonumber(ARGV[7]) then
    return 0
  end
  local counts, seen, dropped, looked, bytes = counts_of(KEYS[13]), {}, 0, 0, 0
  local start = counts.sweep or '+'
  while looked < 500 and bytes < 4194304 do
    local letters = redis.call('XREVRANGE', KEYS[12], start, '-', 'COUNT', 20)
    for _, letter in ipairs(letters) do
      local group = group_of(letter)
      seen[group] = (seen[group] or tonumber(counts['sweep:' .. group]) or 0) + 1
      if seen[group] > tonumber(ARGV[7]) then
        drop(letter)
        dropped = dropped + 1
      end
      bytes = bytes + bytes_of(letter)
      start = '(' .. letter[1]
    end
    looked = looked + #letters
    if #letters < 20 then  -- the end
      for name in pairs(counts) do
        if string.sub(name, 1, 5) == 'sweep' then
          redis.call('HDEL', KEYS[13], name)
        end
      end
      return dropped
    end
  end
  redis.pcall('HSET', KEYS[13], 'sweep', start)
  for group, count in pairs(seen) do
    redis.pcall('HSET', KEYS[13], 'sweep:' .. group, count)
  end
  return dropped
end

-- Entries that are neither settled nor pending nor still to come are gone. When that is first seen it is written down.
local function look_for_missing()
  local counts, vanished = counts_of(KEYS[13]), {}
  for name, group in pairs(groups_of({unpack(KEYS, 1, 10)}, KEYS[14], KEYS[15], counts)) do
    local gone, noted = math.max(0, missing_of(counts, name, group)), tonumber(counts['noted:' .. name]) or 0
    local found = tonumber(counts['found:' .. name])
    if not group.known then
      noted = gone  -- the server has lost count: when the group has read on, it will know again
    elseif not counts['since:' .. name] or (gone > noted and found and now - found < tonumber(ARGV[9])) then
      begin_count(KEYS[13], name, group, now)
    elseif gone ~= noted then
      redis.pcall('HSET', KEYS[13], 'noted:' .. name, string.format('%.0f', gone))
      if gone > noted then
        local gap = string.format('%s %.0f %.0f;', counts.looked or counts['since:' .. name], now, gone - noted)
        redis.pcall('HSET', KEYS[13], 'gaps:' .. name, string.sub((counts['gaps:' .. name] or '') .. gap, -4096))
        vanished[#vanished + 1] = name
        vanished[#vanished + 1] = gone - noted
      end
    end
  end
  redis.pcall('HSET', KEYS[13], 'looked', string.format('%.0f', now))
  return vanished
end

local vanished = look_for_missing()
for i = 1, 10 do
  local length = redis.call('XLEN', KEYS[i])
  if ARGV[8] == '1' and (length > 0 or redis.call('EXISTS', KEYS[i]) == 1) then
    forget_consumers(KEYS[i])
  end
  left = left + length
  if length > 0 then
    local bound = first_unsettled(KEYS[i])
    if bound then
      local kept = first_kept(KEYS[i], length, now, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
      trimmed = trimmed + redis.call('XTRIM', KEYS[i], 'MINID', '=', smaller(bound, kept))
    end
  end
end
if trimmed > 0 then
  redis.pcall('HINCRBY', KEYS[13], 'trimmed', trimmed)
end

local dropped, letters = 0, redis.pcall('XLEN', KEYS[12])
if type(letters) == 'number' and letters > 0 then  -- a key that is of another type keeps nothing from being trimmed
  dropped = drop_old_letters() + drop_surplus_letters()
end
local function keys_of(set)
  local found = {}
  for key in pairs(set) do
    found[#found + 1] = key
  end
  return found
end

return {trimmed, #keys_of(forgotten), dropped, keys_of(missing), left - trimmed, vanished}
