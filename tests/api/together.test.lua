-- VMs that run together keep together in guest time, but for what an idle one jumps to its next timer (L-247).
local JUMP = 1.5
local a = provium:vm("a", "minimal"):boot()
local b = provium:vm("b", "minimal"):boot()

local function uptime(vm)
  return tonumber(vm:read_file("/proc/uptime"):match("^[%d.]+"))
end

--- How much guest time each has had since this was called.
local function watch()
  local at_a, at_b = uptime(a), uptime(b)
  return function() return uptime(a) - at_a, uptime(b) - at_b end
end

test("L-247: one that nobody uses does not run ahead of one that is used", { timeout = "60s" }, function(t)
  local passed = watch()
  for _ = 1, 500 do a:stat("/") end
  for _ = 1, 20 do a:run("true") end
  local of_a, of_b = passed()
  t:assert(of_b < of_a + JUMP, ("%.2f s for the one used, %.2f s for the other"):format(of_a, of_b))
end)

test("L-247: an idle one goes along with a busy one, and both jump when both are idle", { timeout = "60s" }, function(t)
  local passed = watch()
  a:run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
  local of_a, of_b = passed()
  t:assert(math.abs(of_a - of_b) < JUMP, ("%.2f s for the busy one, %.2f s for the other"):format(of_a, of_b))
  passed = watch()
  a:run("sleep 1000", { timeout = "2000s" })
  of_a, of_b = passed()
  t:assert(of_a > 999 and of_b > 999 and of_b < 1010, ("%.2f s and %.2f s"):format(of_a, of_b))
end)

test("L-217: wait_until lasts as long for a guest that is used as for one that is not", { timeout = "60s" }, function(t)
  local passed, calls = watch(), 0
  local ok = pcall(wait_until, function()
    calls = calls + 1
    a:run("true")
    return false
  end, { timeout = "2s", interval = "100ms" })
  t:assert(not ok)
  local of_a = passed()
  t:assert(of_a > 1.5, ("%d calls, %.2f s for the one used"):format(calls, of_a))
end)

test("L-054: one that is paused holds nobody up, and neither does one that is gone", { timeout = "60s" }, function(t)
  b:pause()
  a:run("sleep 100", { timeout = "200s" }):assert_ok()
  b:resume()
  t:assert_eq(b:run("echo up").stdout, "up\n")
  local c = b:clone("c")
  a:run("sleep 100", { timeout = "200s" }):assert_ok()
  c:shutdown()
  a:run("sleep 100", { timeout = "200s" }):assert_ok()
  t:assert_eq(b:run("echo up").stdout, "up\n")
end)
