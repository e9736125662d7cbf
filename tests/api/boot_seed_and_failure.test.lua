-- Boots with one's own command line, with a seed, and boots that fail (lua-api L-067, L-068, L-242).

local vm = provium:vm("a", "minimal", { memory = "96M" })

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-067: kernel_cmdline replaces the line, the harness's own words stay", function(t)
  vm:boot { kernel_cmdline = "mine=1 quiet" }
  local line = vm:read_file("/proc/cmdline")
  t:assert_contains(line, "mine=1 quiet")
  t:assert_contains(line, "console=ttyS0")
  vm:close()
end)

test("L-068: one seed, one stream of random bytes", function(t)
  local function bytes(seed)
    vm:boot { rng_seed = seed }
    local text = vm:run("head -c 32 /dev/urandom | od -An -tx1").stdout
    vm:close()
    return text
  end
  local first = bytes(7)
  t:assert_eq(bytes(7), first)
  t:assert_neq(bytes(8), first)
end)

test("L-072, L-073, L-242: a boot that fails says why, and the console is kept", function(t)
  local e = raised(t, vm.boot, vm, { kernel_cmdline_append = "mem=20M", boot_timeout = "100s" })
  for _, part in ipairs { "vm:boot", "vm a", "boot failed", "boot_seed_and_failure.test.lua:" } do t:assert_contains(e, part) end
  t:assert_contains(e, "anic")
  t:assert_eq(vm:state(), "dead")
  t:assert_contains(vm:console():read_log(), "Linux version")
  local late = provium:vm("late", "minimal", { memory = "64M" })
  e = raised(t, late.boot, late, { boot_timeout = "20ms", cold = true })
  t:assert_contains(e, "0.02s")
  t:assert_contains(e, "did not answer within")
  t:assert_eq(late:state(), "dead")
end)
