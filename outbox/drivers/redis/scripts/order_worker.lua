#!lua
-- An operator asks a worker process to do something.
--
-- KEYS  as in heartbeat.lua
-- ARGV  1 id  2 the order
--
-- Returns whether there is such a worker, as 1 or 0.

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return 1
