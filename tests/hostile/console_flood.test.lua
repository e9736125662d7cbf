-- A guest that writes to its console as fast as it can, for ever.

local vm = provium:vm("a", "minimal", { memory = "128M" }):boot()

test("floods", { timeout = "5s" }, function()
  vm:run("while :; do echo flood flood flood flood flood flood flood > /dev/ttyS0; done")
end)

test("goes on", function(t)
  t:assert_contains(vm:console():read_log(), "flood flood")
  local b = provium:vm("b", "minimal", { memory = "128M" }):boot()
  t:assert_eq(b:run("echo fine").stdout, "fine\n")
end)
