-- A guest that spins with interrupts off: no timer, no agent, nothing gets through to it. The
-- test's deadline ends it, and says where its CPU stood.

local GETPPID = 110
local KERNEL_MAP = 0xffffffff80000000

local vm = provium:vm("a", "minimal", { memory = "128M" }):boot()

-- Where the code of getppid lies in memory. Looked up out here: printing the kernel's symbols
-- takes a slow host longer than the deadline below.
local symbols = vm:run("grep -m 1 ' __x64_sys_getppid$' /proc/kallsyms"):assert_ok().stdout
local address = tonumber(symbols:match("^%x+"), 16) - KERNEL_MAP

test("hangs", { timeout = "5s" }, function()
  vm:phys_write(address, "\xfa\xeb\xfe") -- cli; jmp $
  vm:syscall(GETPPID)
end)

test("goes on", function(t)
  local b = provium:vm("b", "minimal", { memory = "128M" }):boot()
  t:assert_eq(b:run("echo fine").stdout, "fine\n")
end)
