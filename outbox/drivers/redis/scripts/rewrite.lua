#!lua flags=allow-oom
-- Gives fields of a hash other values, where they still have those that were read.
--
-- KEYS  1 the hash
-- ARGV  triples: a field, its value, and the value that it is to have
--
-- Returns how many had changed, or were gone.

local left = 0
for position = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[position]) == ARGV[position + 1] then
    redis.call('HSET', KEYS[1], ARGV[position], ARGV[position + 2])
  else
    left = left + 1
  end
end
return left
