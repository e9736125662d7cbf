-- A fixture on top of another.
local vm = provium:vm_fixture("base")
vm:write_file("/tmp/derived", "yes")
return vm:snapshot()
