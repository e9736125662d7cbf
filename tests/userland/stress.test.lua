-- stress-ng's own verification of what its methods compute, for 60 guest seconds in all. The
-- "vecmath" methods are left out: they want vector units that the processor model lacks.
local vm = provium:vm("stress", "userland")
vm:boot()

local function stress(t, arguments)
  local result = vm:run("stress-ng --verify --metrics-brief " .. arguments .. " 2>&1", { timeout = "600s" })
  t:log(result.stdout)
  result:assert_ok()
  t:assert_contains(result.stdout, "successful run completed")
end

test("cpu, every method", { timeout = "900s" }, function(t)
  stress(t, "--cpu 1 --cpu-method all --timeout 30s")
end)

test("memory, every method", { timeout = "900s" }, function(t)
  stress(t, "--vm 1 --vm-bytes 16M --vm-method all --timeout 20s")
end)

test("integers, strings, atomics and sorting", { timeout = "900s" }, function(t)
  for _, stressor in ipairs { "atomic", "qsort", "str", "memcpy", "bsearch" } do
    stress(t, "--" .. stressor .. " 1 --timeout 2s")
  end
end)
