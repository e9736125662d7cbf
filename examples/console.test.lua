-- The serial console: what the kernel said, and a shell to talk to.

local vm = provium:vm("a", "minimal"):boot()

test("the boot log is there from the first line", function(t)
  local log = vm:console():read_log()
  t:assert_contains(log, "Linux version")
  t:assert_contains(log, "Command line:")
end)

test("a shell answers", function(t)
  local console = vm:console()
  console:expect("# ")
  console:write("echo $((6 * 7)) is the answer\n")
  t:assert_eq(console:expect("42 is the answer"), "42 is the answer")
end)

test("the kernel's own messages arrive as they are written", function(t)
  local stream = vm:console():read()
  vm:write_file("/dev/kmsg", "<4>hello from the test\n")
  stream:expect("hello from the test")
end)
