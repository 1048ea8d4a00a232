-- Items by themselves, their tags and their room, and putting them.

local FIELDS = {'request_id', 'tags', 'priority', 'path', 'content_type', 'message', 'deliveries', 'last_code'}

local function read(queue, index)
  local values = redis.call('HMGET', key(queue, 'i:' .. text(index)), unpack(FIELDS))
  if not values[1] then return nil end
  local item = {index = text(index)}
  for number, field in ipairs(FIELDS) do item[field] = values[number] end
  return item
end

local function data_of(queue, index)
  return redis.call('HGET', key(queue, 'i:' .. text(index)), 'data')
end

local function tags_of(queue, index)
  local tags = redis.call('HGET', key(queue, 'i:' .. text(index)), 'tags')
  return tags and cjson.decode(tags)
end

local function remove(queue, indexes)
  local removed, bytes = 0, 0
  local groups = groups_of(queue)
  for _, index in ipairs(indexes) do
    local name = key(queue, 'i:' .. text(index))
    local found = redis.call('HMGET', name, 'size', 'tags')
    if found[1] then
      removed, bytes = removed + 1, bytes + tonumber(found[1])
      for tag, value in pairs(cjson.decode(found[2])) do
        redis.call('ZREM', tag_key(queue, tag, value), text(index))
      end
      redis.call('DEL', name)
      redis.call('ZREM', key(queue, 'index'), text(index))
      redis.call('ZREM', key(queue, 'order'), padded(index))
      for _, group in ipairs(groups) do redis.call('HDEL', key(queue, 'p:' .. group), text(index)) end
      for _, hash in ipairs({'done', 'claims', 'avoid'}) do
        redis.call('HDEL', key(queue, hash), text(index))
      end
    end
  end
  if removed > 0 then
    redis.call('HINCRBY', key(queue, 'meta'), 'bytes', -bytes)
    tell('freed', queue)
  end
  return removed
end

-- the latest, since a rear queue may have several
local function index_of_request(queue, request_id)
  return redis.call('ZRANGE', tag_key(queue, 'requestId', request_id), -1, -1)[1]
end

local function is_rear(queue)
  return string.sub(queue, -5) == '#rear'
end

-- `item.tags` is JSON text; nothing is written when it returns an error. With `sink` a request that
-- has a result there is refused.
local function put(queue, item, data, room, sink)
  local tags = cjson.decode(item.tags)
  local known = index_of_request(queue, item.request_id)
  if known then
    if data_of(queue, tonumber(known)) == data then
      tell('put', queue, tags)  -- once more, since the first answer may have been lost
      return known
    end
    if not is_rear(queue) then return nil, 'request_id_taken', '' end
  end
  if sink and index_of_request(sink, item.request_id) then return nil, 'request_ended', '' end
  local meta = key(queue, 'meta')
  local size = #data + #item.tags
  local bytes = tonumber(redis.call('HGET', meta, 'bytes') or '0')
  if room and bytes + size > room.bytes then
    if not room.evicts or size > room.bytes then return nil, 'queue_full', text(bytes) end
    local oldest, excess, at = {}, bytes + size - room.bytes, 0
    while excess > 0 do
      local index = tonumber(redis.call('ZRANGE', key(queue, 'index'), at, at)[1])
      oldest[#oldest + 1], at = index, at + 1
      excess = excess - tonumber(redis.call('HGET', key(queue, 'i:' .. text(index)), 'size'))
    end
    remove(queue, oldest)
  end
  redis.call('SADD', 'sdapi:queues', queue)
  local index = redis.call('HINCRBY', meta, 'last', 1)
  redis.call('HINCRBY', meta, 'bytes', size)
  redis.call('HSET', key(queue, 'i:' .. text(index)), 'request_id', item.request_id, 'tags', item.tags,
    'priority', item.priority, 'path', item.path, 'content_type', item.content_type,
    'message', item.message, 'deliveries', 0, 'last_code', 0, 'put_ms', text(now_ms()),
    'size', size, 'data', data)
  redis.call('ZADD', key(queue, 'index'), text(index), text(index))
  redis.call('ZADD', key(queue, 'order'), text(-tonumber(item.priority)), padded(index))
  for tag, value in pairs(tags) do
    redis.call('ZADD', tag_key(queue, tag, value), text(index), text(index))
  end
  tell('put', queue, tags)
  return text(index)
end

-- the shortest list of indexes that holds every match, and the tags that are left to compare
local function candidates(queue, tags)
  local best, size
  for name, value in pairs(tags) do
    local card = redis.call('ZCARD', tag_key(queue, name, value))
    if not size or card < size then best, size = tag_key(queue, name, value), card end
  end
  return best or key(queue, 'index')
end

local function has_tags(queue, index, tags)
  for name, value in pairs(tags) do
    if not redis.call('ZSCORE', tag_key(queue, name, value), index) then return false end
  end
  return true
end

local function matching(queue, query, is_hidden)
  local source, found, bytes, offset = candidates(queue, query.tags), {}, 0, 0
  local is_newest = query.index < 0
  while true do
    local chunk
    if is_newest then
      chunk = redis.call('ZREVRANGEBYSCORE', source, '+inf', 0, 'LIMIT', offset, 100)
    else
      chunk = redis.call('ZRANGEBYSCORE', source, text(query.index), '+inf', 'LIMIT', offset, 100)
    end
    for _, index in ipairs(chunk) do
      if #found >= query.length then return found, bytes end
      if has_tags(queue, index, query.tags) and not is_hidden(index) then
        local size = redis.call('HSTRLEN', key(queue, 'i:' .. index), 'data')
        if #found > 0 and bytes + size > args.answer_bytes then return found, bytes end
        bytes = bytes + size
        found[#found + 1] = tonumber(index)
      end
    end
    if #chunk < 100 then return found, bytes end
    offset = offset + 100
  end
end

-- puts of many callers; each has its own answer
function operations.put()
  local answers = {}
  for at, each in ipairs(args.puts) do
    local room = each.room ~= cjson.null and each.room or nil
    local sink = each.sink ~= cjson.null and each.sink or nil
    local index, code, detail = put(each.queue, each.item, ARGV[2 + at], room, sink)
    answers[at] = index and {index = index} or {error = code, detail = detail}
  end
  return {cjson.encode(answers)}
end
