-- Stands before tidy.lua: where a lane may be cut. Ids are 'ms-sequence'.

-- The smaller of two entry ids.
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

local function bytes_of(entry)
  local bytes = 0
  for _, part in ipairs(entry[2]) do
    bytes = bytes + #part
  end
  return bytes
end

local function ms_of(entry)
  return tonumber(string.match(entry[1], '^(%d+)-'))
end

-- ms at which an entry's event was made, as its own id tells (a UUIDv7); nil if it tells of no time that has been.
local function made(entry, now)
  local high, low = string.match(entry[2][2] or '', '^(%x%x%x%x%x%x%x%x)%-(%x%x%x%x)%-7')
  local ms = high and tonumber(high .. low, 16)
  return ms and ms <= now and ms or nil
end

-- As first_kept below, where the newest entry is dated ahead of the clock. All that are added have its date from then on,
-- so dates say nothing; the order does, and the events' own ids. Looks at some 25,000 entries or 8 MB a round, from the
-- oldest on.
local function first_kept_ahead(lane, length, now, settled, most, least)
  local left, bytes, start, kept = math.min(length, 25000), 0, '-', '0-0'
  local position = 0
  while left > 0 and bytes < 8388608 do
    local entries = redis.call('XRANGE', lane, start, '+', 'COUNT', math.min(left, 500))
    for _, entry in ipairs(entries) do
      position = position + 1
      local wanted = length - position >= most and least or math.max(settled, least)
      if (made(entry, now) or 0) > now - wanted then
        return kept
      end
      kept = after(entry[1])
      bytes = bytes + bytes_of(entry)
    end
    if #entries == 0 then
      break
    end
    left, start = left - #entries, '(' .. entries[#entries][1]
  end
  return kept
end

-- The id before which settled entries are old enough, or too many. Where they are too many, their number is taken to
-- have grown evenly: a few rounds come close, and nothing has to be counted.
local function first_kept(lane, length, now, settled, most, least)
  local newest = ms_of(redis.call('XREVRANGE', lane, '+', '-', 'COUNT', 1)[1])
  if newest > now + 1000 then
    return first_kept_ahead(lane, length, now, settled, most, least)
  end
  local cut = now - settled
  if length > most then
    local oldest = ms_of(redis.call('XRANGE', lane, '-', '+', 'COUNT', 1)[1])
    cut = math.max(cut, oldest + (newest + 1 - oldest) * (1 - most / length))
  end
  return string.format('%.0f-0', math.max(0, math.min(cut, now - least)))
end

