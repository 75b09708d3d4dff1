#!lua flags=allow-oom
-- Lets go of jobs whose rows are gone, a while from now: see common/relayed.lua.
--
-- KEYS  1 outbox:{queue}:relayed  2 outbox:{queue}:outcomes, as in settle.lua
-- ARGV  1 their ids, of 16 bytes each

local relayed, moment = KEYS[1], now()
local ids, scores = ids_of(ARGV[1], 16), {}
local score = moment - KEPT + WHILE
for position, known in ipairs(read('ZMSCORE', relayed, ids)) do
  if known then
    scores[#scores + 1] = digits(score)
    scores[#scores + 1] = ids[position]
  end
end
write('ZADD', relayed, scores)
if redis.call('EXISTS', KEYS[2]) == 1 then
  write('HDEL', KEYS[2], ids)
end
forget_old(relayed, moment)
-- Perhaps nothing more is ever sent to this queue.
local last = redis.call('ZRANGE', relayed, -1, -1, 'WITHSCORES')
if last[2] and tonumber(last[2]) <= score then
  redis.call('PEXPIRE', relayed, WHILE / 1000)
end
