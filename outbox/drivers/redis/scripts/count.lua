#!lua flags=no-writes
-- KEYS  the keys of the queue, as in common/base.lua
--
-- Returns how many jobs are ready, delayed, reserved and failed, the microseconds for which the first ready one has been
-- waiting, or -1, whether the queue is paused (1 or 0), and how many are retrying: the delayed are without them. Its work grows with what is held, not with what waits.

local moment = now()
local there, later, reserved, oldest = 0, 0, 0, -1

local held = lists()
local all = redis.call('HGETALL', KEYS[HELD])
for position = 1, #all, 2 do
  table.insert(held[string.sub(all[position + 1], 1, 1)], all[position])
end

for priority = 0, 9 do
  local key = KEYS[ZERO + priority]
  local first = redis.pcall('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    there = there + redis.call('ZCARD', key)
    later = later + redis.call('ZCOUNT', key, '(' .. digits(moment), '+inf')
    if tonumber(first[2]) <= moment then
      oldest = math.max(oldest, moment - first[2])
    end
    for _, score in ipairs(read('ZMSCORE', key, held[tostring(priority)])) do
      if score and tonumber(score) > moment then
        reserved = reserved + 1
      end
    end
  end
end

local failed = redis.pcall('ZCARD', KEYS[FAILED])
if type(failed) == 'table' then
  failed = 0
end
local paused = redis.call('EXISTS', KEYS[PAUSED])
local retrying = redis.call('ZCOUNT', KEYS[RETRYING], '(' .. digits(moment), '+inf')
return { there - later, later - reserved - retrying, reserved, failed, oldest, paused, retrying }
