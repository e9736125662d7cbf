-- A test file. What stands here runs once, before the tests; its VMs serve all of them.
local vm = provium:vm("first", "minimal"):boot()

test("the kernel says its name", function(t)
  local r = vm:run("uname -s"):assert_ok()
  t:assert_eq(r.stdout, "Linux\n")
end)

test("a file keeps what was written to it", function(t)
  vm:write_file("/tmp/greeting", "hello")
  t:assert_eq(vm:read_file("/tmp/greeting"), "hello")
end)

-- Tests may carry tags: `provium run --tag raw` runs this one.
test("a system call goes straight to the kernel", { tags = { "raw" } }, function(t)
  local getpid = vm:syscall(39)
  t:log("the agent is process " .. getpid.ret)
  t:assert(getpid.ret > 0, "getpid failed")
end)
