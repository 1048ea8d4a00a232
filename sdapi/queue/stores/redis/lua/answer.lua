-- One operation, and who is told of what happened.

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
