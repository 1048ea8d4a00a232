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

-- items ---------------------------------------------------------------------------------------

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

-- consumers -----------------------------------------------------------------------------------

local function consumers_of(queue, group)
  local flat, found = redis.call('HGETALL', key(queue, 'c:' .. group)), {}
  for at = 1, #flat, 2 do
    local consumer = cjson.decode(flat[at + 1])
    consumer.user = flat[at]
    found[#found + 1] = consumer
  end
  return found
end

local function save_consumer(queue, group, consumer)
  redis.call('HSET', key(queue, 'c:' .. group), consumer.user, cjson.encode(consumer))
end

local function pending_of(queue, group)
  local flat, found = redis.call('HGETALL', key(queue, 'p:' .. group)), {}
  for at = 1, #flat, 2 do found[tonumber(flat[at])] = cjson.decode(flat[at + 1]) end
  return found
end

local function free_pending_of(queue, group, user)
  local held = 0
  for index, pending in pairs(pending_of(queue, group)) do
    if pending.user == user then
      redis.call('HDEL', key(queue, 'p:' .. group), text(index))
      held = held + 1
    end
  end
  if held > 0 then tell('put', queue) end
  return held
end

local function add_once(list, value)
  for _, each in ipairs(list) do
    if each == value then return end
  end
  list[#list + 1] = value
end

-- whether a connected consumer of another group still has to get the item
local function is_needed(queue, index, besides)
  local tags = tags_of(queue, index)
  local finished = {}
  for _, group in ipairs(hash_json(key(queue, 'done'), text(index)) or {}) do finished[group] = true end
  for _, group in ipairs(groups_of(queue)) do
    if group ~= besides and not finished[group] then
      for _, consumer in ipairs(consumers_of(queue, group)) do
        if not consumer.gone_at and consumer.start <= index and admits(consumer.tags, tags) then
          return true
        end
      end
    end
  end
  return false
end

local function leave(queue, group, consumer)
  consumer.left_pending = free_pending_of(queue, group, consumer.user)
  consumer.gone_at = now_ms()
  save_consumer(queue, group, consumer)
  for _, index in ipairs(redis.call('HKEYS', key(queue, 'done'))) do
    if not is_needed(queue, tonumber(index), '') then remove(queue, {tonumber(index)}) end
  end
end

local function forget_gone(queue)
  local before = now_ms() - args.gone_kept_ms
  for _, group in ipairs(groups_of(queue)) do
    for _, consumer in ipairs(consumers_of(queue, group)) do
      if consumer.gone_at and consumer.gone_at < before then
        redis.call('HDEL', key(queue, 'c:' .. group), consumer.user)
      end
    end
    if redis.call('HLEN', key(queue, 'c:' .. group)) == 0 then
      redis.call('HDEL', key(queue, 'g'), group)
      redis.call('DEL', key(queue, 'taken:' .. group))
    end
  end
end

-- end a delivery; who held the item counts as active now
local function drop_pending(queue, group, index)
  local pending = hash_json(key(queue, 'p:' .. group), text(index))
  if not pending then return nil end
  redis.call('HDEL', key(queue, 'p:' .. group), text(index))
  local consumer = hash_json(key(queue, 'c:' .. group), pending.user)
  if consumer then
    consumer.user, consumer.active = pending.user, now_ms()
    save_consumer(queue, group, consumer)
  end
  return pending.user
end

local function finish_for_group(queue, group, index)
  if redis.call('EXISTS', key(queue, 'i:' .. text(index))) == 0 then return end
  drop_pending(queue, group, index)
  if is_needed(queue, index, group) then
    local finished = hash_json(key(queue, 'done'), text(index)) or {}
    add_once(finished, group)
    redis.call('HSET', key(queue, 'done'), text(index), cjson.encode(finished))
    tell('freed', queue)
  else
    remove(queue, {index})
  end
end

local function is_held(queue, group, index, fence)
  local pending = hash_json(key(queue, 'p:' .. group), text(index))
  return (pending and pending.fence or '') == fence
end

-- in the priority that begins at a rank of the order: where its indexes from `start` on begin, where
-- the next priority does, and its score. Equal scores stand in the order of their padded indexes.
local function level(order, rank, start)
  local head = redis.call('ZRANGE', order, rank, rank, 'WITHSCORES')
  if #head == 0 then return nil end
  local after = rank + redis.call('ZCOUNT', order, head[2], head[2])
  local low, high, wanted = rank, after, padded(start)
  if head[1] >= wanted then return rank, after, tonumber(head[2]) end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZRANGE', order, middle, middle)[1] < wanted then low = middle + 1 else high = middle end
  end
  return low, after, tonumber(head[2])
end

-- the members of the order from `start` on, by hundreds, as an iterator
local function ordered(order, start)
  local rank, after = 0, 0
  return function()
    while rank and rank >= after do rank, after = level(order, after, start) end
    if not rank then return {} end
    local chunk = redis.call('ZRANGE', order, rank, math.min(rank + 99, after - 1))
    rank = rank + #chunk
    return chunk
  end
end

-- the same of items with tags. In each priority the shorter of two lists is walked, and no further
-- than it is asked for: that of the priority, or that of a tag.
local function ordered_with(queue, order, tags, start)
  local source = candidates(queue, tags)
  local card = redis.call('ZCARD', source)
  local rank, after, score, next_index = 0, 0, nil, nil
  local function of_priority()
    local chunk = redis.call('ZRANGE', order, rank, math.min(rank + 99, after - 1))
    rank = rank + #chunk
    return chunk, function() return true end
  end
  local function of_tag()
    local chunk = redis.call('ZRANGEBYSCORE', source, text(next_index), '+inf', 'LIMIT', 0, 100)
    if #chunk < 100 then rank = after else next_index = tonumber(chunk[100]) + 1 end
    return chunk, function(member) return tonumber(redis.call('ZSCORE', order, member)) == score end
  end
  return function()
    while true do
      while rank and rank >= after do
        rank, after, score = level(order, after, start)
        next_index = start
      end
      if not rank then return {} end
      local found, chunk, is_in_priority = {}, nil, nil
      if after - rank > card then chunk, is_in_priority = of_tag() else chunk, is_in_priority = of_priority() end
      for _, each in ipairs(chunk) do
        local index = tonumber(each)
        if has_tags(queue, text(index), tags) and is_in_priority(padded(index)) then
          found[#found + 1] = padded(index)
        end
      end
      if #found > 0 then return found end
    end
  end
end

-- indexes from `start` on that a group may get, in the order of delivery, as an iterator
local function deliverable(queue, group, common, start)
  local pending_key, order = key(queue, 'p:' .. group), key(queue, 'order')
  local chunk, at = {}, 0
  local more = next(common) and ordered_with(queue, order, common, start) or ordered(order, start)
  return function()
    while true do
      at = at + 1
      if at > #chunk then
        chunk, at = more(), 1
        if #chunk == 0 then return nil end
      end
      local index = tonumber(chunk[at])
      local field = text(index)
      local is_free = redis.call('HEXISTS', pending_key, field) == 0
        and redis.call('HEXISTS', key(queue, 'claims'), field) == 0
      if is_free then
        local is_done = false
        for _, name in ipairs(hash_json(key(queue, 'done'), field) or {}) do
          is_done = is_done or name == group
        end
        if not is_done then return index end
      end
    end
  end
end

-- who holds something can be taken for dead, also when it was already and has not noticed
local function note_node(node)
  redis.call('HSETNX', 'sdapi:nodes', node, 0)
end

local function open_consumers(queue, group, consumers)
  local held = {}
  for _, pending in pairs(pending_of(queue, group)) do
    held[pending.user] = (held[pending.user] or 0) + 1
  end
  local found = {}
  for _, consumer in ipairs(consumers) do
    local window = consumer.auto_commit and args.auto_commit_window or consumer.window
    consumer.free = window - (held[consumer.user] or 0)
    if not consumer.gone_at and not consumer.is_retired and consumer.free > 0 then
      found[#found + 1] = consumer
    end
  end
  return found
end

local function common_filter(consumers)
  local first = consumers[1].tags
  for _, consumer in ipairs(consumers) do
    if not (admits(first, consumer.tags) and admits(consumer.tags, first)) then return {}, true end
  end
  return first, false
end

-- not avoided, then most free places, then longest idle
local function is_better(a, b, avoided)
  if b == nil then return true end
  if (avoided[a.user] or false) ~= (avoided[b.user] or false) then return not avoided[a.user] end
  if a.free ~= b.free then return a.free > b.free end
  return a.active < b.active
end

local function best_for(queue, group, index, consumers, node, insists, compares)
  local avoided = {}
  local gave_back = hash_json(key(queue, 'avoid'), text(index)) or {}
  for _, user in ipairs(gave_back[group] or {}) do avoided[user] = true end
  local tags = compares and tags_of(queue, index)
  local best
  for _, consumer in ipairs(consumers) do
    local may = consumer.free > 0 and consumer.start <= index and (not insists or consumer.node == node)
    if may and (not compares or admits(consumer.tags, tags)) and is_better(consumer, best, avoided) then
      best = consumer
    end
  end
  return best
end

local function deliver(queue, group, index, consumer, is_counted, fence)
  if is_counted then redis.call('HINCRBY', key(queue, 'i:' .. text(index)), 'deliveries', 1) end
  redis.call('HSET', key(queue, 'p:' .. group), text(index),
    cjson.encode({user = consumer.user, fence = fence, since = now_ms()}))
  consumer.last_index, consumer.active = index, now_ms()
  local about = hash_json(key(queue, 'g'), group)
  about.last = math.max(about.last, index)
  redis.call('HSET', key(queue, 'g'), group, cjson.encode(about))
end

-- operations ----------------------------------------------------------------------------------

local operations = {}

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

function operations.get(queue)
  local is_claiming = args.claim ~= ''
  local found, bytes = matching(queue, args.query, function(index)
    return is_claiming and redis.call('HEXISTS', key(queue, 'claims'), index) == 1
  end)
  if #found < args.query.at_least and bytes <= args.answer_bytes / 2 then return {'[]'} end
  if args.query.index < 0 then table.sort(found) end
  if is_claiming then note_node(string.match(args.claim, '^[^:]*')) end
  local items, answer = {}, {''}
  for _, index in ipairs(found) do
    items[#items + 1] = read(queue, index)
    answer[#answer + 1] = data_of(queue, index)
    if is_claiming then redis.call('HSET', key(queue, 'claims'), text(index), args.claim) end
  end
  answer[1] = list_json(items)
  return answer
end

function operations.settle(queue)
  local flat, mine = redis.call('HGETALL', key(queue, 'claims')), {}
  for at = 1, #flat, 2 do
    if flat[at + 1] == args.claim then
      mine[#mine + 1] = tonumber(flat[at])
      redis.call('HDEL', key(queue, 'claims'), flat[at])
    end
  end
  if args.delete then remove(queue, mine) elseif #mine > 0 then tell('put', queue) end
  return {'{}'}
end

function operations.count(queue)
  local has_filter = next(args.tags) ~= nil
  local count = 0
  if not has_filter and args.priority == nil then
    count = redis.call('ZCARD', key(queue, 'index'))
  elseif not has_filter then
    count = redis.call('ZCOUNT', key(queue, 'order'), -args.priority, -args.priority)
  else
    for _, index in ipairs(redis.call('ZRANGE', candidates(queue, args.tags), 0, -1)) do
      local priority = tonumber(redis.call('HGET', key(queue, 'i:' .. index), 'priority'))
      local is_wanted = args.priority == nil or priority == args.priority
      if is_wanted and has_tags(queue, index, args.tags) then count = count + 1 end
    end
  end
  return {cjson.encode({count = count})}
end

function operations.place(queue)
  local rank = redis.call('ZRANK', key(queue, 'order'), padded(args.index))
  if not rank then return {'{}'} end
  local holder, is_pending, held_before = '', false, {}
  for _, group in ipairs(groups_of(queue)) do
    for index, pending in pairs(pending_of(queue, group)) do
      if index == args.index and not is_pending then
        holder, is_pending = group .. '.' .. pending.user, group == args.group
      end
      local other = redis.call('ZRANK', key(queue, 'order'), padded(index))
      if other and other < rank then held_before[index] = true end
    end
  end
  for _ in pairs(held_before) do rank = rank - 1 end
  return {cjson.encode({consumer = holder, is_pending = is_pending,
    waiting_before = is_pending and 0 or rank})}
end

function operations.stats(queue)
  forget_gone(queue)
  local now = now_ms()
  local first = redis.call('ZRANGE', key(queue, 'index'), 0, 0)[1]
  local last = redis.call('ZRANGE', key(queue, 'index'), -1, -1)[1]
  local put_ms = first and redis.call('HGET', key(queue, 'i:' .. first), 'put_ms')
  local consumers, groups = {}, {}
  for _, group in ipairs(groups_of(queue)) do
    local about, held, connected = hash_json(key(queue, 'g'), group), {}, 0
    for _, pending in pairs(pending_of(queue, group)) do
      held[pending.user] = (held[pending.user] or 0) + 1
    end
    for _, consumer in ipairs(consumers_of(queue, group)) do
      if not consumer.gone_at then connected = connected + 1 end
      consumer.group, consumer.pending = group, held[consumer.user] or 0
      consumer.idle_ms = now - consumer.active
      consumer.gone_ms = consumer.gone_at and now - consumer.gone_at
      consumers[#consumers + 1] = consumer
    end
    groups[#groups + 1] = {name = group, number = about.number, last_index = about.last,
      pending = redis.call('HLEN', key(queue, 'p:' .. group)), consumers = connected}
  end
  local figures = {first = first or '0', last = last or '0',
    length = redis.call('ZCARD', key(queue, 'index')),
    bytes = tonumber(redis.call('HGET', key(queue, 'meta'), 'bytes') or '0'),
    oldest_age_ms = put_ms and now - tonumber(put_ms) or 0}
  return {cjson.encode(figures), list_json(consumers), list_json(groups)}
end

function operations.delete(queue)
  return {cjson.encode({removed = remove(queue, args.indexes)})}
end

-- By portions: the caller asks again until nothing is removed.
function operations.truncate(queue)
  local found = redis.call('ZRANGEBYSCORE', key(queue, 'index'), '-inf', '(' .. text(args.below),
    'LIMIT', 0, args.portion)
  for at, index in ipairs(found) do found[at] = tonumber(index) end
  return {cjson.encode({removed = remove(queue, found)})}
end

-- a portion of the indexes from `args.start` on and below `args.below`, and where the next one starts
local function portion(queue)
  local found = redis.call('ZRANGEBYSCORE', key(queue, 'index'), text(args.start), '(' .. text(args.below),
    'LIMIT', 0, args.portion)
  for at, index in ipairs(found) do found[at] = tonumber(index) end
  return found, #found > 0 and found[#found] + 1 or args.below
end

function operations.drop_undelivered(queue)
  local held, free = {}, {}
  for _, group in ipairs(groups_of(queue)) do
    for index in pairs(pending_of(queue, group)) do held[index] = true end
  end
  local found, next_start = portion(queue)
  for _, index in ipairs(found) do
    if not held[index] then free[#free + 1] = index end
  end
  remove(queue, free)
  return {cjson.encode({next = next_start})}
end

function operations.queues()
  return {list_json(redis.call('SMEMBERS', 'sdapi:queues'))}
end

-- what the sink has of a request: indexes of failures, and of results
local function ends_of(sink, request_id)
  local failures, results = {}, {}
  for _, member in ipairs(redis.call('ZRANGE', tag_key(sink, 'requestId', request_id), 0, -1)) do
    local list = tags_of(sink, tonumber(member)).lastCode and failures or results
    list[#list + 1] = tonumber(member)
  end
  return failures, results
end

function operations.requeue(queue)
  local moved, left, bytes = {}, {}, 0
  local found, next_start = portion(args.rear)
  for _, index in ipairs(found) do
    bytes = bytes + redis.call('HSTRLEN', key(args.rear, 'i:' .. text(index)), 'data')
    if bytes > args.answer_bytes and index ~= found[1] then
      next_start = index
      break
    end
    local item, data = read(args.rear, index), data_of(args.rear, index)
    local failures, results = ends_of(args.sink, item.request_id)
    local rival = results[1]
    if queue ~= args.sink then rival = index_of_request(queue, item.request_id) end
    local has_result = queue ~= args.sink and #results > 0
    if has_result or rival and data_of(queue, tonumber(rival)) ~= data then
      left[#left + 1] = item.request_id
    else
      remove(args.sink, failures)
      put(queue, item, data)
      moved[#moved + 1] = index
    end
  end
  return {cjson.encode({moved = remove(args.rear, moved), next = next_start}), list_json(left)}
end

function operations.join(queue)
  redis.call('SADD', 'sdapi:queues', queue)
  note_node(args.member.node)
  forget_gone(queue)
  local group, member = args.group, args.member
  local earlier = hash_json(key(queue, 'c:' .. group), member.user)
  if earlier and not earlier.gone_at then
    free_pending_of(queue, group, member.user)
    if earlier.id ~= member.id then tell('replaced', queue, nil, earlier.id) end
  end
  local number = redis.call('HINCRBY', key(queue, 'meta'), 'joined', 1)
  member.number = earlier and earlier.number or number
  member.active, member.last_index = now_ms(), earlier and earlier.last_index or 0
  member.left_pending = 0
  if member.start < 0 then
    member.start = tonumber(redis.call('HGET', key(queue, 'meta'), 'last') or '0') + 1
  end
  save_consumer(queue, group, member)
  redis.call('HSETNX', key(queue, 'g'), group, cjson.encode({number = number, last = 0}))
  return {'{}'}
end

function operations.leave(queue)
  local consumer = hash_json(key(queue, 'c:' .. args.group), args.user)
  if consumer and consumer.id == args.id and not consumer.gone_at then
    consumer.user = args.user
    leave(queue, args.group, consumer)
  end
  return {'{}'}
end

local function is_any_held(queue, round)
  for _, each in ipairs(round.assigned) do
    if is_held(queue, args.group, tonumber(each.index), each.fence) then return true end
  end
  return false
end

local function answer_round(queue, round, consumers)
  local answer = {''}
  local deliveries, exhausted, members = {}, {}, {}
  for _, each in ipairs(consumers) do
    if each.node == args.node and not each.gone_at then members[#members + 1] = each.id end
  end
  for _, each in ipairs(round.assigned) do
    local index = tonumber(each.index)
    if is_held(queue, args.group, index, each.fence) then
      deliveries[#deliveries + 1] = {member_id = each.member_id, fence = each.fence, item = read(queue, index)}
      answer[#answer + 1] = each.index_only and '' or data_of(queue, index)
    end
  end
  for _, index in ipairs(round.exhausted) do
    local item = read(queue, tonumber(index))
    if item then
      exhausted[#exhausted + 1] = item
      answer[#answer + 1] = data_of(queue, tonumber(index))
    end
  end
  answer[1] = '{"has_deferred":' .. tostring(round.has_deferred) .. ',"deliveries":'
    .. list_json(deliveries) .. ',"exhausted":' .. list_json(exhausted)
    .. ',"held_back":' .. list_json(round.held_back) .. ',"members":' .. list_json(members) .. '}'
  return answer
end

function operations.take(queue)
  local group, node = args.group, args.node
  local taken, all = key(queue, 'taken:' .. group), consumers_of(queue, group)
  local earlier = hash_json(taken, node)
  if earlier and earlier.token == args.token and is_any_held(queue, earlier) then
    return answer_round(queue, earlier, all)
  end
  local round = {token = args.token, assigned = {}, exhausted = {}, held_back = {}, has_deferred = false}
  if args.full_sink ~= nil then
    local stored = tonumber(redis.call('HGET', key(args.full_sink, 'meta'), 'bytes') or '0')
    if stored >= args.full_at then return answer_round(queue, round, all) end
  end
  local consumers, free_here, bytes, unsent = open_consumers(queue, group, all), 0, 0, args.unsent
  for _, each in ipairs(consumers) do
    if each.node == node then free_here = free_here + each.free end
  end
  if free_here == 0 then return answer_round(queue, round, all) end
  local common, compares = common_filter(consumers)
  local is_active, start = {}, math.huge
  for _, each in ipairs(consumers) do start = math.min(start, each.start) end
  local function has_room_for(size)
    local count = #round.assigned + #round.exhausted
    return count == 0 or (count < args.round and bytes + size <= args.answer_bytes)
  end
  local function is_too_much(consumer, size)
    local before = unsent[consumer.id] or 0
    return consumer.node == node and before > 0 and not consumer.index_only
      and before + size > args.unsent_bytes
  end
  for index in deliverable(queue, group, common, start) do
    if free_here == 0 then break end
    local name = key(queue, 'i:' .. text(index))
    local delivered, size = tonumber(redis.call('HGET', name, 'deliveries')), redis.call('HSTRLEN', name, 'data')
    if args.max_delivery > 0 and delivered >= args.max_delivery then
      if not has_room_for(size) then break end
      bytes = bytes + size
      round.exhausted[#round.exhausted + 1] = text(index)
    else
      local best = best_for(queue, group, index, consumers, node, args.insists, compares)
      while best and is_too_much(best, size) do
        round.held_back[#round.held_back + 1] = best.id
        -- nothing that comes later overtakes this item on its way to it
        free_here, best.free = free_here - best.free, 0
        best = best_for(queue, group, index, consumers, node, args.insists, compares)
      end
      if best and best.node ~= node then
        best.free, round.has_deferred = best.free - 1, true
      elseif best then
        local sent = best.index_only and 0 or size
        if not has_room_for(sent) then break end
        best.free, free_here = best.free - 1, free_here - 1
        bytes, unsent[best.id] = bytes + sent, (unsent[best.id] or 0) + sent
        local fence = args.token .. '-' .. text(index)
        deliver(queue, group, index, best, args.is_counted, fence)
        is_active[best.user] = best
        round.assigned[#round.assigned + 1] =
          {index = text(index), fence = fence, member_id = best.id, index_only = best.index_only}
      end
    end
  end
  for _, consumer in pairs(is_active) do
    consumer.free = nil
    save_consumer(queue, group, consumer)
  end
  if #round.assigned > 0 then redis.call('HSET', taken, node, cjson.encode(round)) end
  return answer_round(queue, round, all)
end

function operations.commit(queue)
  for _, index in ipairs(args.indexes) do finish_for_group(queue, args.group, index) end
  return {'{}'}
end

function operations.reject(queue)
  local group = args.group
  if args.retire then
    local consumer = hash_json(key(queue, 'c:' .. group), args.user)
    if consumer then
      consumer.user, consumer.is_retired = args.user, true
      save_consumer(queue, group, consumer)
    end
  end
  for _, index in ipairs(args.indexes) do
    local holder = drop_pending(queue, group, index)
    if holder then
      local avoided = hash_json(key(queue, 'avoid'), text(index)) or {}
      avoided[group] = avoided[group] or {}
      add_once(avoided[group], holder)
      redis.call('HSET', key(queue, 'avoid'), text(index), cjson.encode(avoided))
      tell('put', queue)
    end
  end
  return {'{}'}
end

function operations.release(queue)
  if args.fence == '' or not is_held(queue, args.group, args.index, args.fence) then
    return {'{"is_done":false}'}
  end
  drop_pending(queue, args.group, args.index)
  local name = key(queue, 'i:' .. text(args.index))
  if args.counts then
    redis.call('HSET', name, 'last_code', args.code)
  elseif tonumber(redis.call('HGET', name, 'deliveries')) > 0 then
    redis.call('HINCRBY', name, 'deliveries', -1)
  end
  tell('put', queue)
  return {'{"is_done":true}'}
end

function operations.finish(queue)
  local item = read(queue, args.index)
  if not item or not is_held(queue, args.group, args.index, args.fence) then
    return {'{"is_done":false}'}
  end
  if args.result ~= nil and not index_of_request(args.sink, args.result.request_id) then
    if not put(args.sink, args.result, ARGV[3], args.room) then put(args.sink, args.result, ARGV[3]) end
  end
  if args.rear == nil then
    finish_for_group(queue, args.group, args.index)
  else
    put(args.rear, item, data_of(queue, args.index))
    remove(queue, {args.index})
  end
  return {'{"is_done":true}'}
end

function operations.release_idle(queue)
  local before = now_ms() - args.idle_ms
  for _, group in ipairs(groups_of(queue)) do
    for index, pending in pairs(pending_of(queue, group)) do
      if pending.since <= before then
        redis.call('HDEL', key(queue, 'p:' .. group), text(index))
        tell('put', queue)
      end
    end
  end
  return {'{}'}
end

function operations.begin_node()
  redis.call('HINCRBY', 'sdapi:nodes', args.node, 1)
  return {'{}'}
end

function operations.beat()
  local is_known = tonumber(redis.call('HGET', 'sdapi:nodes', args.node) or '0') > 0
  if is_known then redis.call('HINCRBY', 'sdapi:nodes', args.node, 1) end
  return {cjson.encode({is_known = is_known})}
end

function operations.beats()
  local flat, found = redis.call('HGETALL', 'sdapi:nodes'), {}
  for at = 1, #flat, 2 do found[#found + 1] = {flat[at], tonumber(flat[at + 1])} end
  return {list_json(found)}
end

function operations.bury_node()
  if tonumber(redis.call('HGET', 'sdapi:nodes', args.node) or '-1') ~= args.beats then return {'{}'} end
  redis.call('HDEL', 'sdapi:nodes', args.node)
  for _, queue in ipairs(redis.call('SMEMBERS', 'sdapi:queues')) do
    for _, group in ipairs(groups_of(queue)) do
      for _, consumer in ipairs(consumers_of(queue, group)) do
        if consumer.node == args.node and not consumer.gone_at then leave(queue, group, consumer) end
      end
      redis.call('HDEL', key(queue, 'taken:' .. group), args.node)
    end
    local flat, prefix = redis.call('HGETALL', key(queue, 'claims')), args.node .. ':'
    for at = 1, #flat, 2 do
      if string.sub(flat[at + 1], 1, #prefix) == prefix then
        redis.call('HDEL', key(queue, 'claims'), flat[at])
        tell('put', queue)
      end
    end
  end
  return {'{}'}
end

-- The one subscriber might be another server, while the caller's subscription is cut: a channel that
-- the caller alone subscribes to tells. Where the call is not allowed this finds nothing.
local function is_alone(own)
  local counts = redis.pcall('PUBSUB', 'NUMSUB', 'sdapi:events', own)
  return counts[2] == 1 and counts[4] == 1
end

-- A Redis without memory refuses a script's first command that may take some, but none after one
-- that wrote. What gets items out must work then, or its memory would stay full.
local MAY_BE_REFUSED = {put = true, count = true, place = true, stats = true, queues = true, beats = true}
if not MAY_BE_REFUSED[ARGV[1]] then redis.call('DEL', 'sdapi:none') end

local answer = operations[ARGV[1]](args.queue)
if #events == 0 then return answer end
-- a server that is alone hears by its answer, which saves it a message
if args.own and is_alone(args.own) then
  answer[#answer + 1] = cjson.encode(events)
else
  redis.call('PUBLISH', 'sdapi:events', cjson.encode(events))
end
return answer
