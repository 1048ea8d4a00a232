-- Rounds: which consumer gets which item.

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
