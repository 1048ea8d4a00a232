-- The order of delivery, walked no further than it is asked for.

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
