-- Stands before scripts that look for events in a lane.
-- Looks at entries between two ids, newest first, until all that is wanted is found, or so many entries or about so many
-- bytes were looked at: nobody else is served meanwhile. `wanted`: event ids to their places; found ones are taken out.
-- Returns {where to go on, '' at the end; entries; bytes; the newest entry id, '' if there is none; {places found}}.
local function look(lane, from, to, entries, bytes, wanted)
  local few = 4  -- entries read at a time: any of them may be large
  local count, size, newest, places = 0, 0, '', {}
  while next(wanted) do
    local page = redis.call('XREVRANGE', lane, from, to, 'COUNT', few)
    for _, entry in ipairs(page) do
      local fields = entry[2]
      local place = wanted[fields[2]]
      if place then
        places[#places + 1], wanted[fields[2]] = place, nil
      end
      for i = 2, #fields, 2 do
        size = size + #fields[i]
      end
      newest = newest == '' and entry[1] or newest
      from, count = '(' .. entry[1], count + 1
    end
    if #page < few then
      break
    end
    if count >= entries or size >= bytes then
      return {from, count, size, newest, places}
    end
  end
  return {'', count, size, newest, places}
end

-- The id from which on a lane is to be looked at, of entries that are at most so many ms old.
local function oldest(age)
  return string.format('%.0f', math.max(0, server_ms() - age))
end
