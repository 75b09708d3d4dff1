#!lua flags=allow-oom
-- Writes the ends of attempts. A settlement whose token is not the current one changes nothing.
--
-- KEYS  the keys of the queue, as in common/base.lua; then, where they are in this slot, those of the queues of follow-ups;
--       then outbox:{queue}:ended, if one of the kinds is in lower case: a list of relayed jobs that have ended;
--       then outbox:{queue}:outcomes, if one of the kinds is "k", "l" or "x": id -> how a relayed job with policies ended;
--       then outbox:queues, the set of the names of all queues, if there are other queues
-- ARGV  1 the name of the connection
--       2 records: kind(1) id(16) token(16); the kinds are
--         "C" remove  "F" move to the failed jobs  "c", "f" the same for a relayed job  "k", "l", "x" completed, failed and
--         cancelled for a relayed job with policies  "P" put back  "R" put back after an attempt that failed
--         "S" put back and give the attempt back  "D" let the lease end as if it had run out, and give it back
--       3 the settlements that have follow-ups: position of the settlement, from 1 (4), one per follow-up
--       4, 5 the follow-ups, records and bodies as in common/base.lua; queue number 0 parks the follow-up
--       6 the names of the queues of follow-ups, separated by commas
--       7 new headers of jobs: position of the settlement, from 1 (4), length (4), headers
--       8 … for each "F" the exception, for each "P", "S" and "D" the delay in microseconds, for each "R" the delay and the
--         error, in the order of the records
--
-- Returns one character per record: "1" written, "0" somebody else holds the job, "g" it is gone, "b" it was put back
-- under this token. What the last two mean after a lost answer, `jobs/settle.py` knows.

local RECORD_OF_SETTLEMENT = 33
local connection, records, owners = ARGV[1], ARGV[2], ARGV[3]
local moment = now()
local next_extra = 8
local answers, removed, released, held_on = {}, {}, {}, {}
local leaving, returning, tried, retrying = lists(), lists(), {}, {}
local failed_ids, failed_heads = {}, {}
local ended, outcomes = {}, {}
local OUTCOMES = { k = 'completed', l = 'failed', x = 'cancelled' }
local PLAIN = { c = 'C', f = 'F', k = 'C', l = 'F', x = 'C' }
-- Without a relay the list must not grow for ever. The row of a job that is left out is found by a later look.
local ENDED_AT_MOST = 100000

local ids = {}
local has_outcomes = false
for start = 2, #records, RECORD_OF_SETTLEMENT do
  ids[#ids + 1] = string.sub(records, start, start + 15)
  has_outcomes = has_outcomes or OUTCOMES[string.sub(records, start - 1, start - 1)]
end

local function extra()
  next_extra = next_extra + 1
  return ARGV[next_extra - 1]
end

local function refusal(id, hold, token)
  if hold then
    return '0'
  end
  local put_back = redis.call('HGET', KEYS[TRIES], id)
  if put_back then
    return string.sub(put_back, 6, 21) == token and 'b' or '0'
  end
  return redis.call('HEXISTS', KEYS[JOBS], id) == 1 and '0' or 'g'
end

local function leave(id, hold)
  local list = leaving[KEYS[ZERO + string.sub(hold, 1, 1)]]
  list[#list + 1] = id
  removed[#removed + 1] = id
end

local function put_back(id, hold, token, kind, delay, err)
  local list, available = returning[KEYS[ZERO + string.sub(hold, 1, 1)]], digits(moment + delay)
  list[#list + 1] = available
  list[#list + 1] = id
  released[#released + 1] = id
  local last = err and digits(moment) .. '\n' .. err or string.sub(hold, 24)
  tried[#tried + 1] = id
  tried[#tried + 1] = string.format('%05d', string.sub(hold, 2, 6) - (kind == 'S' and 1 or 0)) .. token .. last
  if #last > 0 then
    retrying[#retrying + 1] = available
    retrying[#retrying + 1] = id
  end
end

local function defer(id, hold, delay)
  local list = returning[KEYS[ZERO + string.sub(hold, 1, 1)]]
  list[#list + 1] = digits(moment + delay)
  list[#list + 1] = id
  held_on[#held_on + 1] = id
  held_on[#held_on + 1] = string.sub(hold, 1, 1) .. string.format('%05d', string.sub(hold, 2, 6) - 1) .. string.sub(hold, 7)
end

local function fail(id, hold, exception)
  leave(id, hold)
  failed_ids[#failed_ids + 1] = id
  failed_heads[#failed_heads + 1] = string.sub(hold, 1, 6) .. '\n' .. connection .. '\n' .. exception .. '\n'
end

local function write_failed()
  local scores, failures, failed_at = {}, {}, digits(moment)
  for position, body in ipairs(read('HMGET', KEYS[JOBS], failed_ids)) do
    scores[#scores + 1] = failed_at
    scores[#scores + 1] = failed_ids[position]
    failures[#failures + 1] = failed_ids[position]
    failures[#failures + 1] = failed_heads[position] .. (body or '')
  end
  write('ZADD', KEYS[FAILED], scores)
  write('HSET', KEYS[FAILURES], failures)
end

for position, hold in ipairs(read('HMGET', KEYS[HELD], ids)) do
  local id, start = ids[position], (position - 1) * RECORD_OF_SETTLEMENT
  local kind, token = string.sub(records, start + 1, start + 1), string.sub(records, start + 18, start + 33)
  local relayed, outcome = PLAIN[kind], OUTCOMES[kind]
  kind = relayed or kind
  local more, err = kind ~= 'C' and extra(), kind == 'R' and extra()
  if not hold or string.sub(hold, 8, 23) ~= token then
    answers[position] = refusal(id, hold, token)
  else
    answers[position] = '1'
    if relayed then
      ended[#ended + 1] = id
    end
    if outcome then
      outcomes[#outcomes + 1] = id
      outcomes[#outcomes + 1] = outcome
    end
    if kind == 'C' then
      leave(id, hold)
    elseif kind == 'F' then
      fail(id, hold, more)
    elseif kind == 'D' then
      defer(id, hold, tonumber(more))
    else
      put_back(id, hold, token, kind, tonumber(more), err)
    end
  end
end

-- Before a failed job is copied: it has them too.
local function replace_headers(packed)
  local at, bodies = 1, {}
  while at <= #packed do
    local position, length = struct.unpack('>I4I4', packed, at)
    local body = answers[position] == '1' and redis.call('HGET', KEYS[JOBS], ids[position])
    if body then
      local before, payload = string.match(body, '^([^\n]*\n[^\n]*\n)[^\n]*(\n.*)$')
      if before then
        bodies[#bodies + 1] = ids[position]
        bodies[#bodies + 1] = before .. string.sub(packed, at + 8, at + 7 + length) .. payload
      end
    end
    at = at + 8 + length
  end
  write('HSET', KEYS[JOBS], bodies)
end

replace_headers(ARGV[7])
write_failed()
for key, list in pairs(leaving) do
  write('ZREM', key, list)
end
for key, list in pairs(returning) do
  write('ZADD', key, list)
end
write('HDEL', KEYS[JOBS], removed)
write('HDEL', KEYS[HELD], removed)
write('HDEL', KEYS[HELD], released)
write('HSET', KEYS[TRIES], tried)
write('ZADD', KEYS[RETRYING], retrying)
write('HSET', KEYS[HELD], held_on)

if #ended > 0 then
  local key = KEYS[#KEYS - (#ARGV[6] > 0 and 1 or 0) - (has_outcomes and 1 or 0)]
  write('RPUSH', key, ended)
  redis.call('LTRIM', key, -ENDED_AT_MOST, -1)
end
if #outcomes > 0 then
  write('HSET', KEYS[#KEYS - (#ARGV[6] > 0 and 1 or 0)], outcomes)
end

if #owners > 0 then
  local here, parked = {}, {}
  for position, job in ipairs(unpack_jobs(ARGV[4], ARGV[5], moment)) do
    if answers[struct.unpack('>I4', owners, position * 4 - 3)] == '1' then
      if job[2] < 0 then
        parked[#parked + 1] = job[1]
        parked[#parked + 1] = digits(job[4]) .. '\n' .. job[5]
      else
        here[#here + 1] = job
      end
    end
  end
  register(ARGV[6])
  insert(here)
  wake(ARGV[6])
  write('HSET', KEYS[PARKED], parked)
end
return table.concat(answers)
