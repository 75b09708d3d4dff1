#!lua flags=no-writes
-- KEYS  as in heartbeat.lua
-- ARGV  1 microseconds: whoever was not heard of for so long does not count  2 … names of queues
--
-- Returns how many worker processes have room and drain one of these queues.

local wanted, idle = {}, 0
for position = 2, #ARGV do
  wanted[ARGV[position]] = true
end
local seen = redis.call('ZRANGE', KEYS[2], '(' .. digits(now() - ARGV[1]), '+inf', 'BYSCORE')
for _, row in ipairs(read('HMGET', KEYS[1], seen)) do
  local worker = row and cjson.decode(string.match(row, '\n(.*)$'))
  if worker and worker.running < worker.concurrency then
    for queue in string.gmatch(worker.queues, '[^,]+') do
      if wanted[queue] then
        idle = idle + 1
        break
      end
    end
  end
end
return idle
