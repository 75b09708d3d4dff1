#!lua flags=allow-oom
-- Takes the claimable jobs of one queue.
--
-- KEYS  the keys of the queue, as in library.lua
-- ARGV  1 the token of this call  2 how many at most  3 the lease, in microseconds
--       4 microseconds since this claim was first sent, if that may have been carried out; otherwise -1
--       5 this claim as one that stands, as in holding.lua, or an empty string: it stands no more, and whether it has
--         been carried out is seen by whether it is still there
--
-- Returns nothing, or a string of records, id(16) priority(1) attempts(4) rescued(1) length of the job(4), and a string
-- of the jobs, one after the other.

local token, limit, lease, since = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local moment = now()

-- The attempt does not count: nobody ever knew of it.
local function give_back(key, id, held)
  redis.call('ZADD', key, digits(moment), id)
  redis.call('HDEL', KEYS[HELD], id)
  redis.call('HSET', KEYS[TRIES], id, string.format('%05d', string.sub(held, 2, 6) - 1) .. token)
end

-- What an earlier try of this very claim took, as long as nobody else has taken it since: its leases ended, or end,
-- now + lease, less the time that has passed since. The second more is for a clock that is being set. Their leases begin
-- anew. This call may have less room than that one had; but what a claim that stood took is returned to whoever ends it.
local function recover()
  local found, latest = { records = {}, jobs = {} }, moment + lease
  local room = #ARGV[5] > 0 and math.max(limit, 1) or limit
  for priority = 0, 9 do
    local key = KEYS[ZERO + priority]
    local ids = redis.call('ZRANGE', key, digits(latest - since - 1000000), digits(latest), 'BYSCORE')
    for position, held in ipairs(read('HMGET', KEYS[HELD], ids)) do
      local id = ids[position]
      if held and string.sub(held, 8) == token then
        if #found.records < room then
          local attempts, rescued = tonumber(string.sub(held, 2, 6)), tonumber(string.sub(held, 7, 7))
          redis.call('ZADD', key, digits(latest), id)
          report(found, id, priority, attempts, rescued, redis.call('HGET', KEYS[JOBS], id))
        else
          give_back(key, id, held)
        end
      end
    end
  end
  return found
end

local found = { records = {}, jobs = {} }
local stood = #ARGV[5] > 0 and redis.call('ZREM', KEYS[STANDING], ARGV[5]) == 1
if since >= 0 and not stood then
  found = recover()
end
if #found.records == 0 then
  found = claim(token, limit, lease, moment)
end
if #found.records > 0 then
  return { table.concat(found.records), table.concat(found.jobs) }
end
