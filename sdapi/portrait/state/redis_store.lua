-- Every operation of the portraits' state on Redis, each one atomic. Runs on Redis 6.2 and later.
--
-- Called with the operation's name and its arguments as JSON; answers JSON, or nothing for null.
-- Keys, below `sdapi:portrait:`
--   accounts         zset    AppIds by the time they were made
--   account:A        hash    token, models, quota (absent for none), used, created_s
--   last             string  the last job's number
--   job:N            hash    owner, model_id, app_id, request, state, message, result, ...
--   open             zset    numbers of jobs that have not ended, by themselves
--   jobs:O           hash    the numbers of owner O's jobs -> model id
--   models:O         hash    model id -> JSON: about, created_s
--   marker           string  what the folder of model files carries

local args = cjson.decode(ARGV[2])

local function key(...)
  return 'sdapi:portrait:' .. table.concat({...}, ':')
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function hash(name)
  local flat, found = redis.call('HGETALL', name), {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return next(found) and found or nil
end

local function account(app_id)
  local found = hash(key('account', app_id))
  if found then found.app_id = app_id end
  return found
end

local function job(number)
  local found = hash(key('job', number))
  if found then found.id = number end
  return found
end

local function held(number, holder)
  local found = job(number)
  return found and found.state == '1' and found.holder == holder and found or nil
end

local function give_back(app_id)
  local name = key('account', app_id)
  if tonumber(redis.call('HGET', name, 'used') or '0') > 0 then
    redis.call('HINCRBY', name, 'used', -1)
  end
end

local function forget_job(owner, number)
  redis.call('DEL', key('job', number))
  redis.call('ZREM', key('open'), number)
  redis.call('HDEL', key('jobs', owner), number)
end

local function put_model(owner, model_id, about)
  redis.call('HSET', key('models', owner), model_id,
    '{"about":' .. about .. ',"created_s":' .. string.format('%.6f', now()) .. '}')
end

local operations = {}

function operations.add_account()
  local name = key('account', args.app_id)
  if redis.call('EXISTS', name) == 1 then return false end
  local created_s = string.format('%.6f', now())
  redis.call('HSET', name, 'token', args.token, 'models', args.models, 'used', '0',
    'created_s', created_s)
  if args.quota then redis.call('HSET', name, 'quota', args.quota) end
  redis.call('ZADD', key('accounts'), created_s, args.app_id)
  return true
end

function operations.account()
  return account(args.app_id)
end

function operations.accounts()
  local found = {}
  for _, app_id in ipairs(redis.call('ZRANGE', key('accounts'), 0, -1)) do
    found[#found + 1] = account(app_id)
  end
  return found
end

function operations.set_quota()
  local name = key('account', args.app_id)
  if redis.call('EXISTS', name) == 0 then return nil end
  if args.quota then redis.call('HSET', name, 'quota', args.quota)
  else redis.call('HDEL', name, 'quota') end
  return account(args.app_id)
end

function operations.remove_account()
  redis.call('ZREM', key('accounts'), args.app_id)
  return redis.call('DEL', key('account', args.app_id)) == 1
end

function operations.take_call()
  local found = account(args.app_id)
  if not found then return false end
  if found.quota and tonumber(found.used) >= tonumber(found.quota) then return false end
  redis.call('HINCRBY', key('account', args.app_id), 'used', 1)
  return true
end

function operations.give_back_call()
  give_back(args.app_id)
  return true
end

function operations.add_job()
  local number = redis.call('INCR', key('last'))
  redis.call('HSET', key('job', number), 'owner', args.owner, 'model_id', args.model_id,
    'request', args.request, 'state', '0', 'message', args.message, 'result', '',
    'created_s', string.format('%.6f', now()), 'attempts', '0', 'held_until_s', '0')
  if args.app_id then redis.call('HSET', key('job', number), 'app_id', args.app_id) end
  redis.call('ZADD', key('open'), number, number)
  redis.call('HSET', key('jobs', args.owner), number, args.model_id)
  return job(number)
end

function operations.job()
  local found = job(args.id)
  return found and found.owner == args.owner and found or nil
end

function operations.claim_job()
  for _, number in ipairs(redis.call('ZRANGE', key('open'), 0, -1)) do
    local name = key('job', number)
    local held_until_s = redis.call('HGET', name, 'held_until_s')
    if not held_until_s then -- deleted by hand: it must not end all claims
      redis.call('ZREM', key('open'), number)
    elseif (tonumber(held_until_s) or 0) < now() then
      redis.call('HSET', name, 'state', '1', 'holder', args.holder,
        'held_until_s', string.format('%.6f', now() + args.lease_s))
      redis.call('HINCRBY', name, 'attempts', 1)
      return job(number)
    end
  end
  return nil
end

function operations.renew_job()
  if not held(args.id, args.holder) then return false end
  redis.call('HSET', key('job', args.id), 'held_until_s',
    string.format('%.6f', now() + args.lease_s))
  return true
end

function operations.release_job()
  local found = held(args.id, args.holder)
  if not found then return false end
  local name = key('job', args.id)
  redis.call('HSET', name, 'held_until_s', '0')
  redis.call('HDEL', name, 'holder')
  if tonumber(found.attempts) > 0 then redis.call('HINCRBY', name, 'attempts', -1) end
  return true
end

function operations.open_models()
  local found = {}
  for _, number in ipairs(redis.call('ZRANGE', key('open'), 0, -1)) do
    local row = redis.call('HMGET', key('job', number), 'owner', 'model_id')
    -- One that was deleted by hand is nobody's; `claim_job` strikes it off.
    if row[1] and row[2] then found[#found + 1] = row end
  end
  return found
end

function operations.finish_job()
  local found = held(args.id, args.holder)
  if not found then return false end
  redis.call('HSET', key('job', args.id), 'state', args.state, 'message', args.message,
    'result', args.result, 'request', '{}')
  redis.call('HDEL', key('job', args.id), 'holder')
  redis.call('ZREM', key('open'), args.id)
  if args.about then put_model(found.owner, found.model_id, args.about)
  elseif found.app_id then give_back(found.app_id) end
  return true
end

function operations.model()
  return redis.call('HGET', key('models', args.owner), args.model_id) or nil
end

function operations.put_model()
  put_model(args.owner, args.model_id, args.about)
  return true
end

function operations.delete_model()
  local count = redis.call('HDEL', key('models', args.owner), args.model_id)
  for number, model_id in pairs(hash(key('jobs', args.owner)) or {}) do
    if model_id == args.model_id then
      forget_job(args.owner, number)
      count = count + 1
    end
  end
  return count > 0
end

function operations.model_ids()
  local ids = {}
  for model_id in pairs(hash(key('models', args.owner)) or {}) do ids[model_id] = true end
  for _, model_id in pairs(hash(key('jobs', args.owner)) or {}) do ids[model_id] = true end
  local found = {}
  for model_id in pairs(ids) do found[#found + 1] = model_id end
  return found
end

function operations.folder_marker()
  redis.call('SETNX', key('marker'), args.proposed)
  return redis.call('GET', key('marker'))
end

-- A Redis without memory refuses a script's first command that may take some, but none after one
-- that wrote. What has been begun must be able to end then, and what takes memory to go.
local MAY_BE_REFUSED = {add_account = true, add_job = true, take_call = true, account = true,
  accounts = true, job = true, open_models = true, model = true, model_ids = true}
if not MAY_BE_REFUSED[ARGV[1]] then redis.call('DEL', key('none')) end

local answer = operations[ARGV[1]]()
if answer == nil then return false end
return cjson.encode(answer)
