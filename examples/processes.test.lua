-- Processes that run beside the test: talk to them, signal them, wait for them.

local vm = provium:vm("a", "minimal"):boot()

test("start, look, wait", function(t)
  local p = vm:run_async("sleep 1; echo done; exit 3")
  t:assert_eq(p:status(), "running")
  local r = p:wait()
  t:assert_eq(r.stdout, "done\n")
  t:assert_eq(r.exit_code, 3)
  t:assert_eq(p:status(), "exited")
end)

test("standard input is a pipe", function(t)
  local p = vm:run_async("tr a-z A-Z")
  p:stdin_write("shout")
  p:close_stdin()
  t:assert_eq(p:wait("10s").stdout, "SHOUT")
end)

test("output as it comes", function(t)
  local p = vm:run_async("for i in 1 2 3; do echo line $i; sleep 1; done")
  local out = p:stdout_stream()
  t:assert_eq(out:read_until("line 2\n"), "line 1\nline 2\n")
  p:kill("term")
  t:assert_eq(p:wait().status, "signalled")
end)

test("wait for something to become true", function(t)
  vm:run_async("sleep 2; touch /tmp/ready")
  local function ready() return vm:run("test -e /tmp/ready"):ok() end
  t:assert(not ready())
  -- On the software CPU the guest's seconds pass only while the test waits, and an idle guest
  -- skips them; so this is quick.
  wait_until(ready, { timeout = "10s", desc = "/tmp/ready" })
end)

test("what is left over is ended with the test", function()
  vm:run_async("sleep 1000")
end)
