#!lua
-- Stores jobs: all, or none. An id that is there already is left alone.
--
-- KEYS  the keys of each queue, as in common/base.lua, one queue after the other;
--       then outbox:queues, the set of the names of all queues, where it is in the same slot
-- ARGV  1 the names of the queues, separated by commas
--       2, 3 records and bodies as in common/base.lua; 4, 5 more of them; …
--
-- Without the flag allow-oom: when the memory is used up, this is what Redis refuses, and everything else goes on.

local moment = now()
register(ARGV[1])
for position = 2, #ARGV, 2 do
  insert(unpack_jobs(ARGV[position], ARGV[position + 1], moment))
end
-- Several are for a claim that takes them together.
local only = #ARGV == 3 and #ARGV[2] == RECORD and string.sub(ARGV[2], 1, 16)
if not only or run_blocking_claim(moment) ~= only then
  wake(ARGV[1])
end
