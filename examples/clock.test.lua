-- The guest's clock belongs to the test: start it anywhere, move it, sleep by it.

local NEW_YEAR = 4102444800 -- 2100-01-01 00:00:00 UTC

local vm = provium:vm("a", "minimal", { initial_time = NEW_YEAR }):boot()
local clock = vm:clock()

test("it starts when the test says", function(t)
  t:assert_eq(vm:run("date -u +%Y").stdout, "2100\n")
end)

test("it can be set and moved", function(t)
  clock:set(NEW_YEAR + 3600)
  t:assert_eq(vm:run("date -u +%H").stdout, "01\n")
  clock:advance("24h")
  t:assert_eq(vm:run("date -u +%d").stdout, "02\n")
  clock:advance(-24 * 3600)
  t:assert_eq(vm:run("date -u +%d").stdout, "01\n")
end)

test("sleeping takes guest time", function(t)
  local before = clock:get_ns()
  clock:sleep("1.5s")
  local slept = clock:get_ns() - before
  t:assert(slept >= 1500000000, "slept " .. slept .. " ns")
end)
