#!lua flags=allow-oom
-- Makes a blocking claim pending, or keeps it pending for longer.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 the claim, as in common/claims.lua  2 for how many microseconds
--       3 "1" if it may have been carried out: then it is only prolonged
--
-- Returns 1 if it is pending now, otherwise 0.

if ARGV[3] == '1' and not redis.call('ZSCORE', KEYS[BLOCKING], ARGV[1]) then
  return 0
end
add_blocking_claim(ARGV[1], digits(now() + ARGV[2]))
return 1
