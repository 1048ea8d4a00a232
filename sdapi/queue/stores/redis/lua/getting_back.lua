-- What becomes of what was handed out.

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
