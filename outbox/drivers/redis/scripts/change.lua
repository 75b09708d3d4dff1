#!lua flags=allow-oom
-- Changes when and how urgently a live job runs that no worker has taken.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 its id  2 the new priority, "" if that stays
--       3 when it becomes available: microseconds from now, or "@" and microseconds since 1970; "" if that stays
--
-- Returns "changed", "held" or "absent". A held job whose lease has ended is still held: its record names the priority,
-- and the next claim takes it.

local id, moment = ARGV[1], now()

local function available_at(score)
  if ARGV[3] == '' then
    -- What is due joins the end of what is due.
    return math.max(score, moment)
  elseif string.sub(ARGV[3], 1, 1) == '@' then
    return math.max(tonumber(string.sub(ARGV[3], 2)), moment)
  end
  return moment + tonumber(ARGV[3])
end

for priority = 0, 9 do
  local key = KEYS[ZERO + priority]
  local score = redis.call('TYPE', key).ok == 'zset' and redis.call('ZSCORE', key, id)
  if score then
    if redis.call('HEXISTS', KEYS[HELD], id) == 1 then
      return 'held'
    end
    local available = digits(available_at(tonumber(score)))
    redis.call('ZREM', key, id)
    redis.call('ZADD', KEYS[ZERO + (tonumber(ARGV[2]) or priority)], available, id)
    redis.call('ZADD', KEYS[RETRYING], 'XX', available, id)
    wake(string.match(KEYS[PAUSED], '{(.*)}'))
    return 'changed'
  end
end
return 'absent'
