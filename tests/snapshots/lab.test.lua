-- Snapshots of labs (lua-api L-041, L-042, L-205).
local root = provium -- in a test, `provium` is the test's own scope
local a = provium:vm("a", "minimal", {memory = "128M"}):boot()
local b = provium:vm("b", "minimal", {memory = "128M"}):boot()
provium:vm("never", "minimal")
local inner = provium:lab("inner")
local c = inner:vm("c", "minimal", {memory = "128M"}):boot()

test("L-042 all members go back, each into its state", function(t)
  for _, vm in ipairs {a, b, c} do vm:write_file("/tmp/x", "one") end
  b:pause()
  local s = root:snapshot()
  t:assert_eq(b:state(), "paused")
  t:assert(s:size() > 0, "size")
  b:resume()
  for _, vm in ipairs {a, b, c} do vm:write_file("/tmp/x", "two") end
  c:kill()
  root:restore(s)
  t:assert_eq(a:state(), "booted")
  t:assert_eq(b:state(), "paused")
  t:assert_eq(c:state(), "booted")
  t:assert_eq(provium.never:state(), "created")
  b:resume()
  for _, vm in ipairs {a, b, c} do t:assert_eq(vm:read_file("/tmp/x"), "one") end
end)

test("L-041 into a directory, and back from there", function(t)
  local dir = os.tmpname()
  os.remove(dir)
  a:write_file("/tmp/x", "in the directory")
  t:assert_eq(inner:snapshot(dir), dir)
  t:assert_contains(t:assert_raises(function() inner:snapshot(dir) end), "not empty")
  local other = provium:lab("other")
  other:restore(dir)
  t:assert_eq(other.c:state(), "booted")
  t:assert_eq(other.c:run("echo up").stdout, "up\n")
  os.execute("rm -r " .. dir)
  t:assert_contains(t:assert_raises(function() other:restore(dir) end), "lab.json")
end)
