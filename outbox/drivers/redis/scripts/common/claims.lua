-- Shared by the scripts that claim jobs. `script.py` puts it between `common/base.lua` and each of them.
--
-- An idle worker leaves a blocking claim of one job, pending until its next probe. The script that stores a job carries it
-- out in the same step and publishes the answer on the channel of the claim. If the answer is lost, the next probe or
-- claim of the worker finds that the claim was carried out, and asks for its jobs by the token.
--
-- The member of the zset: token(16) lease in microseconds(8) channel; its score is when it ends. The answer that is
-- published: token(16) record, as `claim.lua` returns it, job.

-- The name of the connection, for jobs that cannot be run: a claim moves them to the failed jobs. A blocking claim skips
-- them.
local rejects

local function count_of(digits_of_count)
  return math.min(tonumber(digits_of_count) or 0, 65535)
end

-- Commands name a job by 16 bytes.
local function proper_id(id)
  if #id == 16 then
    return id
  end
  return (string.gsub(string.sub(redis.sha1hex(id), 1, 32), '%x%x', function(byte)
    return string.char(tonumber(byte, 16))
  end))
end

-- Moves a job that cannot be run to the failed jobs, as it is. The reason is a literal of these scripts.
local function reject(id, priority, attempts, body, reason)
  local known = string.gsub(id, '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end)
  local exception = '{"type": "outbox.errors.InvalidPayload", "message": "no worker can read this job: ' .. reason
    .. ' (its id in hexadecimal digits is ' .. string.sub(known, 1, 128) .. ')", "traceback": ""}'
  local head, new = string.format('%d%05d', priority, attempts), proper_id(id)
  redis.call('HSET', KEYS[FAILURES], new, head .. '\n' .. rejects .. '\n' .. exception .. '\n' .. body)
  redis.call('ZADD', KEYS[FAILED], digits(now()), new)
  redis.call('ZREM', KEYS[ZERO + priority], id)
  for _, key in ipairs({ JOBS, HELD, TRIES }) do
    redis.call('HDEL', KEYS[key], id)
  end
  redis.call('ZREM', KEYS[RETRYING], id)
end

local function hold(priority, attempts, rescued, token, err)
  return string.format('%d%05d%d', priority, attempts, rescued) .. token .. err
end

local function report(found, id, priority, attempts, rescued, job)
  found.jobs[#found.jobs + 1] = job
  found.records[#found.records + 1] = id .. struct.pack('>BI4BI4', priority, attempts, rescued, #job)
end

local function take_jobs(found, priority, ids, token, lease_end)
  if #ids == 0 then
    return
  end
  local bodies, held = read('HMGET', KEYS[JOBS], ids), read('HMGET', KEYS[HELD], ids)
  local tries = redis.call('EXISTS', KEYS[TRIES]) == 1 and read('HMGET', KEYS[TRIES], ids) or {}
  local ends, holds, counted = {}, {}, {}
  local first_hold = hold(priority, 1, 0, token, '')
  for position, id in ipairs(ids) do
    local before, rescued, err = 0, 0, ''
    if held[position] then
      before, rescued, err = count_of(string.sub(held[position], 2, 6)), 1, string.sub(held[position], 24)
    elseif tries[position] then
      before, err = count_of(string.sub(tries[position], 1, 5)), string.sub(tries[position], 22)
      counted[#counted + 1] = id
    end
    if bodies[position] and #id == 16 then
      ends[#ends + 1] = lease_end
      ends[#ends + 1] = id
      holds[#holds + 1] = id
      holds[#holds + 1] = before + rescued == 0 and first_hold or hold(priority, before + 1, rescued, token, err)
      report(found, id, priority, before + 1, rescued, bodies[position])
    elseif rejects then
      -- Only another program can have written it.
      local reason = bodies[position] and 'its id is not 16 bytes' or 'there is only its id, and nothing in the hash of jobs'
      reject(id, priority, before + rescued, bodies[position] or '', reason)
    end
  end
  write('ZADD', KEYS[ZERO + priority], ends)
  write('HSET', KEYS[HELD], holds)
  write('HDEL', KEYS[TRIES], counted)
  write('ZREM', KEYS[RETRYING], counted)
end

-- Claims up to `limit` jobs of the first queue, by priority and then by available_at. A job is claimable if its
-- available_at is not in the future, whether it is new, delayed, or left by a dead worker.
local function claim(token, limit, lease, moment)
  local found = { records = {}, jobs = {} }
  if redis.call('EXISTS', KEYS[PAUSED]) == 1 then
    return found
  end
  local at_most, lease_end = digits(moment), digits(moment + lease)
  local present = redis.call('HLEN', KEYS[JOBS])
  for priority = 0, 9 do
    local key, missing = KEYS[ZERO + priority], limit - #found.records
    -- A key of another type belongs to another program. The other priorities are claimed from.
    local ids = redis.pcall('ZRANGE', key, '-inf', at_most, 'BYSCORE', 'LIMIT', 0, missing)
    take_jobs(found, priority, ids.err and {} or ids, token, lease_end)
    -- An idle worker is usually woken by the only job. If none was taken, all priorities are searched, because there may
    -- be ids without jobs.
    if #found.records > 0 and #found.records >= math.min(limit, present) then
      break
    end
  end
  return found
end

-- Carries out a pending blocking claim on the first queue, if its channel has a subscriber and a job is claimable.
-- Returns the id of the claimed job.
local function run_blocking_claim(moment)
  local blocking = KEYS[BLOCKING]
  if redis.call('EXISTS', blocking) == 0 then
    return
  end
  while true do
    -- The latest: the worker that probed last is the most likely to be alive.
    local last = redis.call('ZPOPMAX', blocking)
    if not last[1] or tonumber(last[2]) < moment then
      redis.call('DEL', blocking)
      return
    end
    local token, lease = struct.unpack('>c16I8', last[1])
    local channel = string.sub(last[1], 25)
    local listening = redis.pcall('PUBSUB', 'NUMSUB', channel)
    if listening[2] and listening[2] > 0 then
      local found = claim(token, 1, lease, moment)
      if #found.records == 0 then
        add_blocking_claim(last[1], last[2])
        return
      end
      local told = redis.pcall('PUBLISH', channel, token .. found.records[1] .. found.jobs[1])
      -- Without the right to publish, the next probe of the worker finds the job.
      return type(told) == 'number' and string.sub(found.records[1], 1, 16)
    end
  end
end
