-- What must be a VM's own and right, whether its kernel was started or it goes on from an earlier boot's state. Each
-- file that asks is one more pair of VMs.
local own = {}

local function rows(t, vm, command)
  return vm:run(command):assert_ok().stdout
end

local function look(t, name, seen)
  local vm = provium:vm(name, "minimal", { memory = "96M" }):boot()
  for _, source in ipairs {
    "head -c 64 /dev/urandom | od -An -tx1", "cat /proc/sys/kernel/random/boot_id", "cat /proc/sys/kernel/random/uuid",
    "dd if=/dev/hwrng bs=64 count=1 2>/dev/null | od -An -tx1",
  } do
    local value = rows(t, vm, source)
    t:assert(#value > 30, source .. " gave " .. value)
    t:assert(not seen[value], source .. " of " .. name .. " is that of another VM")
    seen[value] = true
  end
  t:assert(not seen[vm:cid()], "its cid is its own")
  seen[vm:cid()] = true
  -- A guest on a busy host is behind by what its boot took.
  t:assert(math.abs(vm:clock():get() - os.time()) < 100, "its clock is right: " .. vm:clock():get())
  local up = tonumber(vm:read_file("/proc/uptime"):match("^[%d.]+"))
  t:assert(up > 0.1 and up < 30, "up for " .. up)
  local log = vm:console():read_log()
  t:assert_contains(log, "Linux version")
  local stream = vm:console():read()
  t:assert_eq(stream:next("1s"):sub(1, 200), log:sub(1, 200), "a stream begins with the first byte")
  stream:close()
  local trouble = rows(t, vm, "dmesg | grep -i -e warning -e stall -e lockup -e clocksource.*unstable -e 'Call Trace'; true")
  t:assert_eq(trouble, "")
  t:assert_eq(vm:run("test -e /tmp/mine").exit_code, 1)
  vm:write_file("/tmp/mine", name)
  return vm
end

--- Registers the tests.
function own.tests()
  test("two VMs booted alike share nothing and lack nothing", function(t)
    local seen = {}
    local a, b = look(t, "a", seen), look(t, "b", seen)
    t:assert_eq(a:read_file("/tmp/mine"), "a")
    b:shutdown()
    b:boot()
    t:assert_eq(b:run("test -e /tmp/mine").exit_code, 1)
    local id = b:read_file("/proc/sys/kernel/random/boot_id")
    t:assert(not seen[id], "each boot has an id of its own")
    a:reset()
    t:assert_eq(a:run("test -e /tmp/mine").exit_code, 1)
    t:assert_neq(a:read_file("/proc/sys/kernel/random/boot_id"), id)
    local s = b:snapshot()
    b:write_file("/tmp/later", "x")
    b:shutdown()
    b:restore(s)
    t:assert_eq(b:run("test -e /tmp/later").exit_code, 1)
    t:assert_eq(b:read_file("/proc/sys/kernel/random/boot_id"), id)
  end)
end

return own
