-- Deleting, by portions where there may be much, and another try for dead letters.

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
