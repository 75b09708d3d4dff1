#!lua flags=allow-oom
-- Takes the claimable jobs of one queue.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 the token of this claim  2 how many at most  3 the lease, in microseconds
--       4 microseconds since this claim was first sent, if that may have been carried out; otherwise -1
--       5 this claim as a blocking one, as in common/claims.lua, or an empty string. It ends here. If it is no longer
--         pending, it was carried out
--       6 how many at most of those that it took when it was carried out before; the others are put back
--       7 the name of the connection
--
-- Returns nothing, or a string of records, id(16) priority(1) attempts(4) rescued(1) length of the job(4), and a string
-- of the jobs, one after the other.

local token, limit, lease, since = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local room = tonumber(ARGV[6])
local moment = now()
rejects = ARGV[7]

-- What may be held under this token: ids by priority. The leases of an earlier try end now + lease, less the time that
-- has passed since; the second more is for a clock that is being set. After an outage that outlasts the lease, these are
-- the times of jobs that wait as well, and what is held is less.
local function candidates()
  local ids, latest = {}, moment + lease
  if since <= lease then
    for priority = 0, 9 do
      local bounds = { digits(latest - since - 1000000), digits(latest) }
      local found = redis.pcall('ZRANGE', KEYS[ZERO + priority], bounds[1], bounds[2], 'BYSCORE')
      ids[priority] = found.err and {} or found
    end
    return ids
  end
  for priority = 0, 9 do
    ids[priority] = {}
  end
  local held = redis.call('HGETALL', KEYS[HELD])
  for position = 1, #held, 2 do
    if string.sub(held[position + 1], 8, 23) == token then
      table.insert(ids[tonumber(string.sub(held[position + 1], 1, 1))], held[position])
    end
  end
  return ids
end

-- The attempt does not count: the worker never knew of it.
local function give_back(key, id, held)
  redis.call('ZADD', key, digits(moment), id)
  redis.call('HDEL', KEYS[HELD], id)
  local last_error = string.sub(held, 24)
  redis.call('HSET', KEYS[TRIES], id, string.format('%05d', math.max(count_of(string.sub(held, 2, 6)) - 1, 0)) .. token .. last_error)
  if #last_error > 0 then
    redis.call('ZADD', KEYS[RETRYING], digits(moment), id)
  end
end

-- What an earlier try of this claim took, unless another worker has taken it since. Its leases begin anew.
local function recover()
  local found, lease_end = { records = {}, jobs = {} }, digits(moment + lease)
  for priority, ids in pairs(candidates()) do
    local key = KEYS[ZERO + priority]
    for position, held in ipairs(read('HMGET', KEYS[HELD], ids)) do
      local id = ids[position]
      local job = held and string.sub(held, 8, 23) == token and redis.call('HGET', KEYS[JOBS], id)
      if job and #found.records < room then
        local attempts, rescued = count_of(string.sub(held, 2, 6)), count_of(string.sub(held, 7, 7))
        redis.call('ZADD', key, lease_end, id)
        report(found, id, priority, attempts, rescued, job)
      elseif job then
        give_back(key, id, held)
      end
    end
  end
  return found
end

local found = { records = {}, jobs = {} }
local was_pending = #ARGV[5] > 0 and redis.call('ZREM', KEYS[BLOCKING], ARGV[5]) == 1
if since >= 0 and not was_pending then
  found = recover()
end
if #found.records == 0 and limit > 0 then
  found = claim(token, limit, lease, moment)
end
if #found.records > 0 then
  return { table.concat(found.records), table.concat(found.jobs) }
end
