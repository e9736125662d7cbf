-- A file without test() is one test (C-053); what it leaves up is killed at its end (C-057).
local boot = require("lib.boot")
local vm = boot("minimal")
assert(vm:exec("true").ok)
assert_eq("booted", vm:state())
assert_contains(vm:exec("uname -a").stdout, "Linux")
vm:background("sleep 1000")
