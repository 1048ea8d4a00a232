-- The servers, by their heartbeats.

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
