-- Every operation of the queue on Redis, each one atomic. Runs on Redis 6.2 and later.
--
-- Called with the operation's name, its arguments as JSON, and the items' data, which is binary.
-- Answers a list: JSON, then the data of each item in it. What happened is published at the end to
-- `sdapi:events`, or is the last of the list for a caller who has a channel of its `own` and is the
-- only one who listens.
--
-- Keys of a queue Q, below `sdapi:q:Q:`
--   meta     hash    last index, stored bytes
--   index    zset    every index, by itself
--   order    zset    indexes padded to one width, by falling priority: the order of delivery
--   i:N      hash    item N
--   t:K=V    zset    the indexes of items with the tag
--   p:G      hash    what group G holds: index -> {user, fence, since}
--   c:G      hash    the consumers of group G: user -> JSON
--   g        hash    groups: name -> {number, last}
--   done     hash    index -> the groups that have finished it while others have not
--   claims   hash    index -> the reader it is reserved for
--   avoid    hash    index -> group -> users that gave it back
--   taken:G  hash    node -> its latest round, should the answer have been lost
-- and `sdapi:queues` (set), `sdapi:nodes` (hash: node -> heartbeats; none yet, or none since it was
-- taken for dead: 0).

local args = cjson.decode(ARGV[2])
local events = {}

local function key(queue, suffix)
  return 'sdapi:q:' .. queue .. ':' .. suffix
end

-- Lua prints large numbers with an exponent
local function text(number)
  return string.format('%.0f', number)
end

local function padded(index)
  return string.format('%016.0f', index)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function tell(change, queue, tags, member)
  events[#events + 1] = {change = change, queue = queue, tags = tags, member_id = member}
end

local function tag_key(queue, name, value)
  return key(queue, 't:' .. #name .. ':' .. name .. '=' .. value)
end

local function hash_json(name, field)
  local found = redis.call('HGET', name, field)
  return found and cjson.decode(found)
end

-- an empty table would be encoded as an object, where a list is meant
local function list_json(list)
  return #list == 0 and '[]' or cjson.encode(list)
end

local function admits(filter, tags)
  for name, value in pairs(filter) do
    if tags[name] ~= value then return false end
  end
  return true
end

local function groups_of(queue)
  return redis.call('HKEYS', key(queue, 'g'))
end

-- name -> function of a queue's name; each answers the list that is described above
local operations = {}
