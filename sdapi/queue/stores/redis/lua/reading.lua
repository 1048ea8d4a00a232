-- What readers ask for, and the figures.

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

function operations.queues()
  return {list_json(redis.call('SMEMBERS', 'sdapi:queues'))}
end
