-- Shared by all scripts of a queue. `script.py` puts it before each of them.
--
-- They are given the keys of the queue in this order. All carry the hash tag {queue}, so that they are in one slot.
--
--   outbox:{queue}:paused    string  there while nothing may be claimed
--   outbox:{queue}:jobs      hash    id -> created_at "\n" name "\n" headers "\n" payload; the time of a relayed job begins with "+"
--   outbox:{queue}:held      hash    id -> priority(1) attempts(5) rescued(1) token(16) error: from a claim to its
--                                    settlement
--   outbox:{queue}:tries     hash    id -> attempts(5) token(16) error: what a job that was put back had, and who put it
--                                    back; the error is its last one, "" or when it was "\n" what it was
--   outbox:{queue}:failed    zset    id by failed_at
--   outbox:{queue}:failures  hash    id -> priority(1) attempts(5) "\n" connection "\n" exception "\n" job, as in jobs
--   outbox:{queue}:parked    hash    id -> available_at "\n" now "\n" queue "\n" priority "\n" name "\n" headers "\n"
--                                    payload: a follow-up on its way to another slot
--   outbox:{queue}:standing  zset    blocking claims by when they end: see common/claims.lua
--   outbox:{queue}:retrying  zset    id by available_at: those of the jobs put back whose last attempt failed
--   outbox:{queue}:0 … :9    zset    id by available_at, one for each priority; a held job's is the end of its lease
--
-- Ids and tokens are 16 bytes. UUIDv7 sorts by time, and a zset sorts equal scores by member: jobs that became available
-- at the same moment are claimed in the order of their dispatch. Times are microseconds since 1970 by this server's
-- clock, which a double holds exactly until the year 2255.

local PAUSED, JOBS, HELD, TRIES, FAILED, FAILURES, PARKED, BLOCKING, RETRYING, ZERO = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local KEYS_OF_A_QUEUE = 19

-- Lua's stack takes 8,000 arguments.
local SPAN = 4000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua would write it with 14 digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- A command with as many arguments as there are.
local function write(command, key, values)
  for first = 1, #values, SPAN do
    redis.call(command, key, unpack(values, first, math.min(first + SPAN - 1, #values)))
  end
end

local function read(command, key, fields)
  if #fields <= SPAN then
    return #fields > 0 and redis.call(command, key, unpack(fields)) or {}
  end
  local found = {}
  for first = 1, #fields, SPAN do
    local part = redis.call(command, key, unpack(fields, first, math.min(first + SPAN - 1, #fields)))
    for position = 1, #part do
      found[first + position - 1] = part[position]
    end
  end
  return found
end

-- Lists by a key of the redis keyspace, made when first asked for.
local function lists()
  return setmetatable({}, {
    __index = function(all, key)
      local list = {}
      all[key] = list
      return list
    end,
  })
end

-- Adds names, separated by commas, to the set of the names of all queues: the last key, where it is in the same slot.
local function register(names)
  if #names > 0 and #KEYS % KEYS_OF_A_QUEUE > 0 then
    for name in string.gmatch(names, '[^,]+') do
      redis.call('SADD', KEYS[#KEYS], name)
    end
  end
end

-- Publishes that jobs came (`outbox/wakeups/redis_channel.py`). Without the right to publish, workers poll.
local function wake(names)
  if #names > 0 then
    redis.pcall('PUBLISH', 'outbox:wake', names)
  end
end

-- Adds a blocking claim: see common/claims.lua.
local function add_blocking_claim(claim, ends)
  redis.call('ZADD', KEYS[BLOCKING], ends, claim)
  -- The key of a dead worker must not stay in an unused queue.
  redis.call('PEXPIRE', KEYS[BLOCKING], 60000)
end

-- Ids of 16 bytes out of a string of records of the given width.
local function ids_of(records, width)
  local ids = {}
  for start = 1, #records, width do
    ids[#ids + 1] = string.sub(records, start, start + 15)
  end
  return ids
end

-- Puts jobs where they can be claimed, leaving those alone that are there already.
-- jobs: list of {id, base (of the queue's keys in KEYS, minus one), priority, available_at, body}
local function insert(jobs)
  local by_queue = lists()
  for _, job in ipairs(jobs) do
    table.insert(by_queue[job[2]], job)
  end
  for base, list in pairs(by_queue) do
    local ids, there = {}, {}
    for position, job in ipairs(list) do
      ids[position] = job[1]
    end
    for priority = 0, 9 do
      local key = KEYS[base + ZERO + priority]
      -- One of another type is somebody else's.
      if redis.call('TYPE', key).ok == 'zset' then
        for position, score in ipairs(read('ZMSCORE', key, ids)) do
          there[ids[position]] = there[ids[position]] or score
        end
      end
    end
    local bodies, scores = {}, lists()
    for _, job in ipairs(list) do
      if not there[job[1]] then
        local list_of_priority = scores[KEYS[base + ZERO + job[3]]]
        list_of_priority[#list_of_priority + 1] = digits(job[4])
        list_of_priority[#list_of_priority + 1] = job[1]
        bodies[#bodies + 1] = job[1]
        bodies[#bodies + 1] = job[5]
      end
    end
    write('HSET', KEYS[base + JOBS], bodies)
    for key, list_of_priority in pairs(scores) do
      write('ZADD', key, list_of_priority)
    end
  end
end

-- Jobs as `encoding.py` writes them, ready for `insert`. A record of 32 bytes: id(16) number of the queue(2, from 1)
-- priority(1) absolute(1) microseconds(8, from now or from 1970) length of the body(4); the bodies follow each other.
local RECORD = 32
local function unpack_jobs(records, bodies, moment)
  local created, start, jobs = digits(moment) .. '\n', 1, {}
  for position = 1, #records, RECORD do
    local id, queue, priority, absolute, when, length = struct.unpack('>c16I2BBI8I4', records, position)
    local body = created .. string.sub(bodies, start, start + length - 1)
    start = start + length
    local available = absolute == 1 and when or moment + when
    jobs[#jobs + 1] = { id, (queue - 1) * KEYS_OF_A_QUEUE, priority, available, body }
  end
  return jobs
end
