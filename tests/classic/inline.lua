-- test() runs its body at once, so later code sees what it did (C-048).
local vm = require("lib.boot")("minimal")
local pid

test("a job", function()
  local job = vm:background("sleep 1000")
  pid = job.pid
  assert(vm:exec("kill -0 " .. pid).ok)
end)

-- The job belongs to the file, not to the test that started it (C-038).
assert(vm:exec("kill -0 " .. pid).ok, "the job ended with its test")

test("todo in a test leaves it out", function()
  todo("waits for a device")
end)

test("shutdown_all reaches every VM of the file", function()
  local other = provium.create("minimal"):boot { memory = "256M" }
  provium.shutdown_all()
  assert_eq("shutdown", vm:state())
  assert_eq("shutdown", other:state())
  provium.shutdown_all()
end)

vm:boot()
assert_eq("1\n", vm:exec("nproc").stdout.value)
vm:kill()
vm:kill()
assert_eq("shutdown", vm:state())
