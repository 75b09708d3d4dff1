#!lua flags=no-writes
-- KEYS  as in heartbeat.lua
--
-- Returns for each worker: id, microseconds since its last heartbeat, its row, and its order or "".

local moment = now()
local answer = {}
local seen = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for position = 1, #seen, 2 do
  local row = redis.call('HGET', KEYS[1], seen[position])
  if row then
    answer[#answer + 1] = { seen[position], moment - seen[position + 1], row, redis.call('HGET', KEYS[3], seen[position]) or '' }
  end
end
return answer
