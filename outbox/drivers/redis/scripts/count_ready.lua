#!lua flags=no-writes
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 as many as are of interest
--
-- Returns how many jobs are claimable now, those included whose leases have ended: at most as many as are of interest.

local at_most, count = digits(now()), 0
if redis.call('EXISTS', KEYS[PAUSED]) == 1 then
  return 0
end
for priority = 0, 9 do
  if count < tonumber(ARGV[1]) then
    count = count + redis.call('ZCOUNT', KEYS[ZERO + priority], '-inf', at_most)
  end
end
return math.min(count, tonumber(ARGV[1]))
