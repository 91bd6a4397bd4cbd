-- Stands before scripts that deal with ordered groups: what waits behind which.
-- `order` (HASH): 'k:ENTRY' the key of an entry that is not settled; 't:KEY' the last entry of a key; 'n:ENTRY' the entry
-- behind it. The first entry of a key is in the hands of a consumer, or rests until its retry is due. All others of the
-- key are pending under QUEUED, and nobody reclaims them.

-- What an event is ordered by: the organization and the key that it was published with; nil without a key.
local function key_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'meta' then
      local readable, meta = pcall(cjson.decode, fields[i + 1])
      if readable and type(meta) == 'table' and type(meta.subject) == 'string' then
        return (type(meta.organization) == 'string' and meta.organization or '') .. '\n' .. meta.subject
      end
    end
  end
end

-- Whether an entry that was read just now may begin: nothing of its key is before it. Else it waits in line.
local function line_up(order, lane_key, group, entry, fields)
  local key = key_of(fields)
  if not key then
    return true
  end
  local last = redis.call('HGET', order, 't:' .. key)
  redis.call('HSET', order, 't:' .. key, entry, 'k:' .. entry, key)
  if not last then
    return true
  end
  redis.call('HSET', order, 'n:' .. last, entry)
  redis.call('XCLAIM', lane_key, group, QUEUED, 0, id_of(entry), 'JUSTID')
  return false
end

-- An entry is settled: {the next entry of its key, its fields}, claimed for the consumer; nil if there is none.
-- `lanes`: the keys of all lanes. What is gone from the stream is passed over.
local function follow(order, lanes, group, consumer, entry)
  while entry do
    local key, next_one = unpack(redis.call('HMGET', order, 'k:' .. entry, 'n:' .. entry))
    redis.call('HDEL', order, 'k:' .. entry, 'n:' .. entry)
    if key and not next_one and redis.call('HGET', order, 't:' .. key) == entry then
      redis.call('HDEL', order, 't:' .. key)
    end
    if not next_one then
      return nil
    end
    local claimed = redis.call('XCLAIM', lanes[lane_of(next_one)], group, consumer, 0, id_of(next_one))
    if claimed[1] then
      return {next_one, claimed[1][2]}
    end
    entry = next_one
  end
end
