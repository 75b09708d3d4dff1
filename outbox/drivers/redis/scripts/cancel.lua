#!lua flags=allow-oom
-- Removes live jobs, held or not. Whoever runs one owns nothing any more: its token matches nothing.
--
-- KEYS  the keys of the queue, as in common/base.lua; then outbox:{queue}:ended, as in settle.lua
-- ARGV  ids
--
-- Publishes that jobs were cancelled, and returns those that there were.

local ids, removed = {}, {}
for position = 1, #ARGV do
  ids[position] = ARGV[position]
end
for priority = 0, 9 do
  local key, here = KEYS[ZERO + priority], {}
  local scores = redis.call('TYPE', key).ok == 'zset' and read('ZMSCORE', key, ids) or {}
  for position, score in ipairs(scores) do
    if score then
      here[#here + 1] = ids[position]
      removed[#removed + 1] = ids[position]
    end
  end
  write('ZREM', key, here)
end
note_relayed_ends(removed)
for _, key in ipairs({ JOBS, HELD, TRIES }) do
  write('HDEL', KEYS[key], removed)
end
write('ZREM', KEYS[RETRYING], removed)
if #removed > 0 then
  wake('!cancelled')
end
return removed
