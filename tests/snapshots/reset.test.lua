-- provium.reset_between_tests (lua-api L-011, L-012).
provium.reset_between_tests = true
local vm = provium:vm("a", "minimal", {memory = "128M"}):boot()
provium:vm("down", "minimal")
vm:write_file("/tmp/x", "baseline")
local f = vm:open_file("/tmp/x", {read = true})
local p = vm:run_async("sleep 1000")

for round = 1, 3 do
  test("round " .. round .. " starts from the baseline", function(t)
    t:assert_eq(vm:read_file("/tmp/x"), "baseline")
    t:assert_eq(f:read(4), "base")
    t:assert_eq(p:status(), "running")
    t:assert_eq(provium.down:state(), "created")
    vm:write_file("/tmp/x", "spoilt")
    p:kill()
    p:wait()
    if round == 1 then vm:run("rm -rf /tmp/* /etc"):ok() end
    if round == 2 then
      provium.down:boot()
      vm:kill()
    end
  end)
end
