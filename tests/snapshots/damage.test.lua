-- Damaged snapshots of a real guest: an error that names the file and what is wrong, never a wedge or another guest
-- (L-080). Every region is sampled, of a whole snapshot and of one that builds on it.
local dir = os.tmpname()
os.remove(dir)
assert(os.execute("mkdir " .. dir))
_G.cleanup = setmetatable({}, { __gc = function() os.execute("rm -rf " .. dir) end })

local vm = provium:vm("a", "minimal", { memory = "96M" }):boot()
vm:write_file("/tmp/mark", "whole")
vm:snapshot(dir .. "/whole.snap")
vm:write_file("/tmp/mark", "little")
vm:snapshot(dir .. "/little.snap", dir .. "/whole.snap")

local function u64(file, at)
  file:seek("set", at)
  return (string.unpack("<I8", file:read(8)))
end

--- The parts of a snapshot by name, from its header (vmm/src/snapshot/format.rs): first byte and length.
local function parts(path)
  local file <close> = assert(io.open(path, "rb"))
  local found = { { "header", 0, 24 + 5 * 20 + 12 } }
  for i, name in ipairs { "state", "owner", "console", "base", "chunks" } do
    local at = 24 + (i - 1) * 20
    found[#found + 1] = { name, u64(file, at), u64(file, at + 8) }
  end
  found[#found + 1] = { "ram", u64(file, 24 + 5 * 20), u64(file, 16) }
  return found
end

local tried = 0
--- Restores a VM of its own from a file; its error, or what its guest holds.
local function go_on(path)
  tried = tried + 1
  local other = provium:vm("try" .. tried, "minimal")
  local ok, why = pcall(other.restore, other, path)
  if not ok then return tostring(why) end
  local mark = other:read_file("/tmp/mark")
  other:shutdown()
  return nil, mark
end

local function flip(path, at)
  local file <close> = assert(io.open(path, "r+b"))
  file:seek("set", at)
  local byte = file:read(1):byte()
  file:seek("set", at)
  file:write(string.char(byte ~ 0x40))
  return byte
end

--- Offsets that are told apart from nothing: in memory, those of bytes that are not zero.
local function samples(path, name, from, len)
  local found = {}
  if len == 0 then return found end
  if name ~= "ram" then
    for _, share in ipairs { 0, 0.31, 0.77 } do found[#found + 1] = from + (len * share) // 1 | 0 end
    found[#found + 1] = from + len - 1
    return found
  end
  local file <close> = assert(io.open(path, "rb"))
  for k = 0, 11 do
    file:seek("set", from + len * k // 12)
    local at = from + len * k // 12
    for _ = 1, 200 do
      local page = file:read(4096)
      if not page then break end
      local there = page:find("[^\0]")
      if there then
        found[#found + 1] = at + there - 1
        break
      end
      at = at + 4096
    end
  end
  return found
end

for _, name in ipairs { "whole", "little" } do
  local path = dir .. "/" .. name .. ".snap"

  test("a flipped bit in a " .. name .. " snapshot", { timeout = "120s" }, function(t)
    local copy = dir .. "/" .. name .. "-flipped.snap"
    assert(os.execute(("cp --sparse=always %s %s"):format(path, copy)))
    local noticed = 0
    for _, part in ipairs(parts(path)) do
      for _, at in ipairs(samples(path, table.unpack(part))) do
        flip(copy, at)
        local why = go_on(copy)
        t:assert(why, ("%s: the flip at %d went unnoticed"):format(part[1], at))
        t:assert(why:find("-flipped.snap", 1, true), why)
        flip(copy, at)
        noticed = noticed + 1
      end
    end
    t:assert(noticed > 20, noticed)
    local why, mark = go_on(copy)
    t:assert_eq(why, nil)
    t:assert_eq(mark, name)
  end)

  test("a truncated " .. name .. " snapshot", { timeout = "120s" }, function(t)
    for _, part in ipairs(parts(path)) do
      local _, from, len = table.unpack(part)
      for _, size in ipairs { from, from + len // 2 } do
        local copy = dir .. "/" .. name .. "-cut.snap"
        assert(os.execute(("cp --sparse=always %s %s && truncate -s %d %s"):format(path, copy, size, copy)))
        local why = go_on(copy)
        t:assert(why and why:find("-cut.snap", 1, true), ("%s at %d: %s"):format(part[1], size, why))
      end
    end
  end)
end

test("a damaged base is told through the one that builds on it", function(t)
  assert(os.execute(("mkdir %s/apart && cp --sparse=always %s/*e.snap %s/apart/"):format(dir, dir, dir)))
  local path = dir .. "/apart/whole.snap"
  local all = parts(path)
  local ram = all[#all]
  flip(path, samples(path, table.unpack(ram))[1])
  local why = go_on(dir .. "/apart/little.snap")
  for _, part in ipairs { "apart/little.snap", "apart/whole.snap", "checksum of memory" } do
    t:assert(why:find(part, 1, true), why)
  end
end)
