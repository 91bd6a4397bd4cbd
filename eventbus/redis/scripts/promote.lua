-- Move what is due from the schedule into the lanes, oldest due time first. What cannot be moved keeps no other back: it
-- becomes a dead letter of no group, and where that is refused as well, it is tried again later.
-- KEYS[1…10] lanes  KEYS[11] due (ZSET: event id by ms)  KEYS[12] scheduled (HASH: event id to packed lane and fields)
-- KEYS[13] dead  KEYS[14] counts (HASH: see accounts.lua)
-- ARGV[1] how many at the most  ARGV[2] ms after which what can be neither moved nor set aside is tried again
-- Returns {ms until the next one is due (0 if more are due now), or -1 if there is none, {event id, reason, … of those
-- that were not moved}}. A server that takes no writes at all, for want of memory for example, is an error as ever.
local now, aside, refused, left = server_ms(), {}, nil, {promoted = 0, aside = 0}
local unable = {OOM = 1, READONLY = 1, MISCONF = 1, NOREPLICAS = 1, LOADING = 1, MASTERDOWN = 1, CLUSTERDOWN = 1}

-- The reason why it cannot be moved; nil if it was.
local function move(packed)
  local readable, entry = pcall(cmsgpack.unpack, packed)
  readable = readable and type(entry) == 'table' and #entry >= 3 and #entry % 2 == 1
  for i = 2, readable and #entry or 0 do
    readable = readable and type(entry[i]) == 'string'
  end
  if not readable then
    return 'what is kept of it cannot be read', {'scheduled', string.sub(packed, 1, 65536)}
  end
  local lane = type(entry[1]) == 'number' and entry[1] <= 10 and KEYS[entry[1]]
  if not lane then
    return 'its priority ' .. tostring(entry[1]) .. ' has no lane', {unpack(entry, 2)}
  end
  local added = redis.pcall('XADD', lane, '*', unpack(entry, 2))
  if type(added) == 'table' and added.err then
    return added.err, {unpack(entry, 2)}
  end
end

local function is_unable(reason)
  return unable[string.match(reason, '^%u+') or '']
end

local function set_aside(fields, reason)
  for _, part in ipairs({'dead.group', '', 'dead.entry', '', 'dead.attempts', '0', 'dead.crashes', '0',
    'dead.error', 'it was scheduled, and cannot be delivered: ' .. reason, 'dead.traceback', '',
    'dead.firstFailedAt', string.format('%.0f', now)}) do
    fields[#fields + 1] = part
  end
  return redis.pcall('XADD', KEYS[13], '*', unpack(fields))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[11], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local packed, kept = redis.call('HGET', KEYS[12], id), false
  if packed then
    local reason, fields = move(packed)
    if reason then
      local letter = is_unable(reason) and {err = reason} or set_aside(fields, reason)
      kept = type(letter) == 'table' and letter.err
      if kept and is_unable(kept) then
        refused = kept
        break
      end
      aside[#aside + 1] = id
      aside[#aside + 1] = reason
    end
    if not kept then
      redis.call('HDEL', KEYS[12], id)
      left[reason and 'aside' or 'promoted'] = left[reason and 'aside' or 'promoted'] + 1
    end
  end
  if kept then
    redis.call('ZADD', KEYS[11], string.format('%.0f', now + ARGV[2]), id)
  else
    redis.call('ZREM', KEYS[11], id)
  end
end
for name, count in pairs(left) do
  if count > 0 then
    redis.pcall('HINCRBY', KEYS[14], name, count)
  end
end
if refused and #aside == 0 then  -- else what was set aside is told first
  return {err = refused}
end
local first = redis.call('ZRANGE', KEYS[11], 0, 0, 'WITHSCORES')
return {#first == 0 and -1 or math.max(0, first[2] - now), aside}
