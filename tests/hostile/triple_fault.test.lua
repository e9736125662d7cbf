-- A guest that takes its CPU down: with reboot=t the kernel restarts by an empty interrupt table.

local vm = provium:vm("a", "minimal", { memory = "128M", kernel_cmdline_append = "reboot=t" }):boot()

test("triple-faults", function()
  vm:run("reboot -f; sleep 100")
end)

test("goes on", function(t)
  t:assert_eq(vm:state(), "dead")
  local b = provium:vm("b", "minimal", { memory = "128M" }):boot()
  t:assert_eq(b:run("echo fine").stdout, "fine\n")
end)
