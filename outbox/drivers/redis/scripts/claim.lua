#!lua flags=allow-oom
-- Takes the claimable jobs of one queue.
--
-- KEYS  the keys of the queue, as in library.lua
-- ARGV  1 the token of this call  2 how many at most  3 the lease, in microseconds
--       4 microseconds since this call was first sent, if that may have been carried out; otherwise -1
--       5 this claim as one that stands, as in holding.lua, or an empty string: it stands no more, and whether it has
--         been carried out is seen by whether it is still there
--       6 the name of the connection
--
-- Returns nothing, or a string of records, id(16) priority(1) attempts(4) rescued(1) length of the job(4), a string of
-- the jobs, one after the other, and whether an earlier try took them.

local token, limit, lease, since = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local moment = now()
rejects = ARGV[6]

-- What an earlier try of this very call took: its leases end now + lease, less the time that has passed since. The
-- second more is for a clock that is being set.
local function recover()
  local found, latest = { records = {}, jobs = {} }, moment + lease
  for priority = 0, 9 do
    local key = KEYS[ZERO + priority]
    local ids = redis.pcall('ZRANGE', key, digits(latest - since - 1000000), digits(latest), 'BYSCORE')
    for position, held in ipairs(read('HMGET', KEYS[HELD], ids.err and {} or ids)) do
      if held and string.sub(held, 8, 23) == token then
        local attempts, rescued = count_of(string.sub(held, 2, 6)), count_of(string.sub(held, 7, 7))
        report(found, ids[position], priority, attempts, rescued, redis.call('HGET', KEYS[JOBS], ids[position]) or '')
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
local recovered = #found.records > 0
if not recovered then
  found = claim(token, limit, lease, moment)
end
if #found.records > 0 then
  return { table.concat(found.records), table.concat(found.jobs), recovered and 1 or 0 }
end
