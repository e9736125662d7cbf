-- Two VMs, one of them in a sub-lab, and one that was never booted.
local a = provium:vm("a", "minimal", {memory = "128M"})
local inner = provium:lab("inner")
local b = inner:vm("b", "minimal", {memory = "128M"})
provium:vm("c", "minimal")
a:boot() b:boot()
a:write_file("/tmp/who", "a")
b:write_file("/tmp/who", "b")
return provium:snapshot()
