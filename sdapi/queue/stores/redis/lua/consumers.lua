-- Who is connected, what each holds, and when an item is over for a group.

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

-- who holds something can be taken for dead, also when it was already and has not noticed
local function note_node(node)
  redis.call('HSETNX', 'sdapi:nodes', node, 0)
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
