-- The smallest useful test file: boot a kernel, ask it something, check the answer.
--
-- Run it with:  provium run examples/smoke.test.lua

local vm = provium:vm("a", "minimal"):boot()

test("the kernel is Linux", function(t)
  local r = vm:run("uname -s")
  t:assert_eq(r.stdout, "Linux\n")
  t:assert_eq(r.exit_code, 0)
end)

test("a command may fail, and says how", function(t)
  local r = vm:run("ls /nowhere")
  t:assert(not r:ok(), "ls of a missing directory should fail")
  t:assert_contains(r.stderr, "No such file or directory")
end)

test("arguments go to the program as they are", function(t)
  -- A list of arguments runs the program directly; no shell touches them.
  local r = vm:run("echo", { "$HOME", "two words", "*" }):assert_ok()
  t:assert_eq(r.stdout, "$HOME two words *\n")
end)

test("environment, directory and input are options", function(t)
  local r = vm:run("echo $GREETING from $(pwd); cat", {
    env = { GREETING = "hello" },
    cwd = "/tmp",
    stdin = "and this was piped in",
  })
  t:assert_eq(r.stdout, "hello from /tmp\nand this was piped in")
end)

test("a command that takes too long is killed", function(t)
  local r = vm:run("echo started; sleep 1000", { timeout = "2s" })
  t:assert(r.timed_out)
  t:assert_eq(r.stdout, "started\n")
end)
