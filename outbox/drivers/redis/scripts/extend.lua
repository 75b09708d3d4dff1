#!lua flags=allow-oom
-- Renews the leases of jobs that are still held under the tokens given.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 the lease, in microseconds  2 records: id(16) token(16)
--
-- Returns one character per record: "1" kept, "0" lost.

local lease, records = tonumber(ARGV[1]), ARGV[2]
local lease_end = digits(now() + lease)
local ids = ids_of(records, 32)
local ends, answers = lists(), {}
for position, hold in ipairs(read('HMGET', KEYS[HELD], ids)) do
  local start = position * 32 - 15
  if hold and string.sub(hold, 8, 23) == string.sub(records, start, start + 15) then
    local list = ends[KEYS[ZERO + string.sub(hold, 1, 1)]]
    list[#list + 1] = lease_end
    list[#list + 1] = ids[position]
    answers[position] = '1'
  else
    answers[position] = '0'
  end
end
for key, list in pairs(ends) do
  write('ZADD', key, list)
end
return table.concat(answers)
