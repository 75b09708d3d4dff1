#!lua flags=allow-oom
-- Takes the claimable jobs of one queue: by priority, then by when they became available. What is ready, what has
-- become due and what a dead worker held are the same to it: available_at is not in the future.
--
-- KEYS  the keys of the queue, as in library.lua
-- ARGV  1 the token of this call  2 how many at most  3 the lease, in microseconds
--       4 microseconds since this call was first sent, if that may have been carried out; otherwise -1
--
-- Returns nothing, or a string of records, id(16) priority(1) attempts(4) rescued(1) length of the job(4), and a string
-- of the jobs, one after the other.

local token, limit, lease, since = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local moment = now()
local records, jobs = {}, {}

local function report(id, priority, attempts, rescued, job)
  jobs[#jobs + 1] = job
  records[#records + 1] = id .. struct.pack('>BI4BI4', priority, attempts, rescued, #job)
end

local function hold(priority, attempts, rescued)
  return string.format('%d%05d%d', priority, attempts, rescued) .. token
end

local function take(priority, ids)
  if #ids == 0 then
    return
  end
  local bodies, held = read('HMGET', KEYS[JOBS], ids), read('HMGET', KEYS[HELD], ids)
  local tries = redis.call('EXISTS', KEYS[TRIES]) == 1 and read('HMGET', KEYS[TRIES], ids) or {}
  local ends, holds, counted, orphans = {}, {}, {}, {}
  local lease_end, first_hold = digits(moment + lease), hold(priority, 1, 0)
  for position, id in ipairs(ids) do
    local before, rescued = 0, 0
    if held[position] then
      before, rescued = tonumber(string.sub(held[position], 2, 6)), 1
    elseif tries[position] then
      before = tonumber(string.sub(tries[position], 1, 5))
      counted[#counted + 1] = id
    end
    if bodies[position] then
      ends[#ends + 1] = lease_end
      ends[#ends + 1] = id
      holds[#holds + 1] = id
      holds[#holds + 1] = before + rescued == 0 and first_hold or hold(priority, before + 1, rescued)
      report(id, priority, before + 1, rescued, bodies[position])
    else
      orphans[#orphans + 1] = id
    end
  end
  write('ZADD', KEYS[ZERO + priority], ends)
  write('HSET', KEYS[HELD], holds)
  write('HDEL', KEYS[TRIES], counted)
  -- Only somebody else's hands can have removed a job and left its id.
  write('ZREM', KEYS[ZERO + priority], orphans)
end

-- What an earlier try of this very call took: its leases end now + lease, less the time that has passed since. The
-- second more is for a clock that is being set.
local function recover(priority)
  local latest = moment + lease
  local ids =
    redis.call('ZRANGE', KEYS[ZERO + priority], digits(latest - since - 1000000), digits(latest), 'BYSCORE')
  local held, mine = read('HMGET', KEYS[HELD], ids), {}
  for position, id in ipairs(ids) do
    if held[position] and string.sub(held[position], 8) == token then
      mine[#mine + 1] = { id, held[position] }
    end
  end
  for _, found in ipairs(mine) do
    local attempts, rescued = tonumber(string.sub(found[2], 2, 6)), tonumber(string.sub(found[2], 7, 7))
    report(found[1], priority, attempts, rescued, redis.call('HGET', KEYS[JOBS], found[1]))
  end
end

if since >= 0 then
  for priority = 0, 9 do
    recover(priority)
  end
end
if #records == 0 and redis.call('EXISTS', KEYS[PAUSED]) == 0 then
  local at_most, present = digits(moment), redis.call('HLEN', KEYS[JOBS])
  for priority = 0, 9 do
    local key, missing = KEYS[ZERO + priority], limit - #records
    take(priority, redis.call('ZRANGE', key, '-inf', at_most, 'BYSCORE', 'LIMIT', 0, missing))
    -- An idle worker is mostly told of the only job there is. Where none was taken, all priorities are looked through:
    -- there may be ids without their jobs.
    if #records > 0 and #records >= math.min(limit, present) then
      break
    end
  end
end
if #records > 0 then
  return { table.concat(records), table.concat(jobs) }
end
