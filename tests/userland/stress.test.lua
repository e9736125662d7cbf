-- stress-ng's own verification of what its methods compute, for 60 guest seconds in all, or
-- as many as PROVIUM_STRESS_SECONDS says. Each takes five to ten seconds of the host's time, so
-- give it that: `provium run --timeout 0 stress.test.lua`. The "vecmath" methods are left out: they
-- want vector units that the processor model lacks.
local SECONDS = tonumber(os.getenv("PROVIUM_STRESS_SECONDS") or "60")

local vm = provium:vm("stress", "userland"):boot()

local function stress(t, share, arguments)
  local seconds = math.max(1, math.floor(SECONDS * share))
  local command = ("stress-ng --verify --metrics-brief %s --timeout %ds 2>&1"):format(arguments, seconds)
  local result = vm:run(command, { timeout = "1h" })
  t:log(result.stdout)
  result:assert_ok()
  t:assert_contains(result.stdout, "successful run completed")
end

test("cpu, every method", function(t)
  stress(t, 0.5, "--cpu 1 --cpu-method all")
end)

test("memory, every method", function(t)
  stress(t, 0.3, "--vm 1 --vm-bytes 16M --vm-method all")
end)

for _, stressor in ipairs { "atomic", "qsort", "str", "bsearch" } do
  test(stressor, function(t)
    stress(t, 0.05, ("--%s 1"):format(stressor))
  end)
end
