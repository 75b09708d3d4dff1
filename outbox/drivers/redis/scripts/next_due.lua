#!lua flags=no-writes
-- KEYS  the keys of the queue, as in common/base.lua
--
-- Returns the microseconds until the earliest moment at which a job may be claimable, the end of a lease included: 0
-- when one may be now, -1 when there is none, or the queue is paused.

local moment, earliest = now(), nil
for priority = 0, 9 do
  local first = redis.pcall('ZRANGE', KEYS[ZERO + priority], 0, 0, 'WITHSCORES')
  if first[2] then
    earliest = math.min(earliest or math.huge, math.max(0, first[2] - moment))
  end
end
return redis.call('EXISTS', KEYS[PAUSED]) == 0 and earliest or -1
