#!lua flags=allow-oom
-- KEYS  as in heartbeat.lua
-- ARGV  1 microseconds: forget who was not heard of for so long  2 or only this id
--
-- Returns how many there were.

local gone = ARGV[2] and { ARGV[2] }
  or redis.call('ZRANGE', KEYS[2], '-inf', '(' .. digits(now() - ARGV[1]), 'BYSCORE')
local count = 0
for _, id in ipairs(gone) do
  count = count + redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[3], id)
end
return count
