-- A guest that spins with interrupts off: no timer, no agent, nothing gets through to it. The
-- test's deadline ends it, and says where its CPU stood.

local GETPPID = 110
local KERNEL_MAP = 0xffffffff80000000

local vm = provium:vm("a", "minimal", { memory = "128M" }):boot()

test("hangs", { timeout = "5s" }, function()
  -- Replaces the code of getppid by `cli; jmp $`.
  local symbols = vm:run("grep ' __x64_sys_getppid$' /proc/kallsyms"):assert_ok().stdout
  local address = tonumber(symbols:match("^%x+"), 16)
  vm:phys_write(address - KERNEL_MAP, "\xfa\xeb\xfe")
  vm:syscall(GETPPID)
end)

test("goes on", function(t)
  local b = provium:vm("b", "minimal", { memory = "128M" }):boot()
  t:assert_eq(b:run("echo fine").stdout, "fine\n")
end)
