#!lua flags=allow-oom
-- A worker process is alive.
--
-- KEYS  1 outbox:{:workers}:rows  hash  id -> started_at "\n" JSON
--       2 outbox:{:workers}:seen  zset  id by the time of its last heartbeat
--       3 outbox:{:workers}:orders  hash  id -> what an operator asks it to do, until it hears of it
-- ARGV  1 id  2 JSON
--
-- Returns the order that it has not heard of yet, or "".

local moment = digits(now())
local known = redis.call('HGET', KEYS[1], ARGV[1])
local started_at = known and string.match(known, '^%d+') or moment
redis.call('HSET', KEYS[1], ARGV[1], started_at .. '\n' .. ARGV[2])
redis.call('ZADD', KEYS[2], moment, ARGV[1])
local order = redis.call('HGET', KEYS[3], ARGV[1])
if order then
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return order or ''
