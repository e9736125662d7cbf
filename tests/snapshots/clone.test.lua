-- Forks of running VMs.
local vm = provium:vm("a", "minimal", {memory = "256M"}):boot()
vm:write_file("/tmp/x", "shared")

test("a clone has everything and keeps its changes to itself", function(t)
  local c = vm:clone("c")
  t:assert_eq(c:name(), "c")
  t:assert_eq(c:state(), "booted")
  t:assert_eq(c:read_file("/tmp/x"), "shared")
  c:write_file("/tmp/x", "clone")
  vm:write_file("/tmp/y", "original")
  t:assert_eq(vm:read_file("/tmp/x"), "shared")
  t:assert_eq(c:run("ls /tmp/y 2>/dev/null").stdout, "")
end)

test("clones of clones, many at once", function(t)
  local all = {vm}
  for i = 1, 8 do all[#all + 1] = all[i]:clone() end
  for i, c in ipairs(all) do c:write_file("/tmp/me", tostring(i)) end
  for i, c in ipairs(all) do
    t:assert_eq(c:read_file("/tmp/me"), tostring(i))
    t:assert_eq(c:read_file("/tmp/x"), "shared")
  end
end)

test("a lab is cloned with all its VMs", function(t)
  local lab = provium:lab("l")
  local a = lab:vm("a", "minimal", {memory = "128M"}):boot()
  a:write_file("/tmp/x", "in the lab")
  local copy = lab:clone("copy")
  t:assert_eq(copy.a:read_file("/tmp/x"), "in the lab")
  t:assert(copy.a ~= a, "another VM")
end)
