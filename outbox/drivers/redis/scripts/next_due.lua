#!lua flags=no-writes
-- KEYS  the keys of the queue, as in common/base.lua
--
-- Returns the microseconds until the earliest moment at which a job may be claimable, the end of a lease included: 0
-- when one may be now, -1 when there is none, or the queue is paused until it is resumed.

local moment, earliest = now(), nil
for priority = 0, 9 do
  local first = redis.pcall('ZRANGE', KEYS[ZERO + priority], 0, 0, 'WITHSCORES')
  if first[2] then
    earliest = math.min(earliest or math.huge, math.max(0, first[2] - moment))
  end
end
-- -2 if it is not paused, -1 if the pause has no end.
local paused = redis.call('PTTL', KEYS[PAUSED])
if not earliest or paused == -1 then
  return -1
end
return math.max(earliest, paused * 1000, 0)
