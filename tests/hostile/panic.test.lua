-- A guest whose kernel panics in the middle of an operation. The first test is meant to fail and
-- to say why; the second shows that the file goes on.

local vm = provium:vm("a", "minimal", { memory = "128M" }):boot()

test("panics", function()
  vm:run("echo c > /proc/sysrq-trigger; sleep 100")
end)

test("goes on", function(t)
  t:assert_eq(vm:state(), "dead")
  t:assert_contains(vm:console():read_log(), "Kernel panic - not syncing")
  local b = provium:vm("b", "minimal", { memory = "128M" }):boot()
  t:assert_eq(b:run("echo fine").stdout, "fine\n")
end)
