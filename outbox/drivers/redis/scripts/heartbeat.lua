#!lua flags=allow-oom
-- A worker process is alive.
--
-- KEYS  1 outbox:{:workers}:rows  hash  id -> started_at "\n" JSON
--       2 outbox:{:workers}:seen  zset  id by the time of its last heartbeat
-- ARGV  1 id  2 JSON

local moment = digits(now())
local known = redis.call('HGET', KEYS[1], ARGV[1])
local started_at = known and string.match(known, '^%d+') or moment
redis.call('HSET', KEYS[1], ARGV[1], started_at .. '\n' .. ARGV[2])
redis.call('ZADD', KEYS[2], moment, ARGV[1])
