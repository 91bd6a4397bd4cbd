-- What a stream's groups cannot account for. Begins the counting for groups that were there before it.
-- KEYS[1…10] lanes  KEYS[11] counts (HASH: see accounts.lua)  KEYS[12] due (ZSET)  KEYS[13] scheduled (HASH)
-- Returns {ms of now, the counts as name, value, …, {{group, 1 if the entries before it are known in number else 0,
-- missing among the lanes where they are, {{lane, id of the last that the group was given, last id of the lane, entries
-- that are neither settled nor pending}, …} of the others}, …}}.
local now = server_ms()
local lanes = {unpack(KEYS, 1, 10)}
local counts = counts_of(KEYS[11])
local found = {}
for name, group in pairs(groups_of(lanes, KEYS[12], KEYS[13], counts)) do
  if group.known and not counts['since:' .. name] then
    begin_count(KEYS[11], name, group, now)
  end
  local unknown = {}
  for lane, key in ipairs(group.known and {} or lanes) do
    if not group.open[lane] and redis.call('EXISTS', key) == 1 then
      local stream = pairs_of(redis.call('XINFO', 'STREAM', key))
      for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        local info = pairs_of(flat)
        if info.name == name then
          local settled = count_of(counts, 'acked', lane, name) + count_of(counts, 'buried', lane, name)
          local open = stream['entries-added'] - info.pending - settled - count_of(counts, 'base', lane, name)
          unknown[#unknown + 1] = {lane, info['last-delivered-id'], stream['last-generated-id'], open}
        end
      end
    end
  end
  found[#found + 1] = {name, group.known and 1 or 0, counts['since:' .. name] and missing_of(counts, name, group) or 0, unknown}
end
local flat = redis.pcall('HGETALL', KEYS[11])
return {now, flat.err and {} or flat, found}
