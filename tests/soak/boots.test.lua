-- Boots in a row, each to an agent that answers. `provium run --include-slow tests/soak`
local BOOTS = tonumber(os.getenv("PROVIUM_SOAK_BOOTS") or "200")

test(BOOTS .. " boots in a row", { slow = true, timeout = "3h" }, function(t)
  for n = 1, BOOTS do
    local vm = provium:vm("boot" .. n, "minimal", { cpus = n % 4 == 0 and 4 or 1, cold = true })
    vm:boot()
    t:assert_eq(vm:run("echo up"):assert_ok().stdout, "up\n", "boot " .. n)
    vm:shutdown()
  end
end)
