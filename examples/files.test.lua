-- Files of the guest: whole ones, directories, and open files with a cursor.

local vm = provium:vm("a", "minimal"):boot()

test("write a file, read it back", function(t)
  vm:write_file("/tmp/note", "any bytes: \0\255\n")
  t:assert_eq(vm:read_file("/tmp/note"), "any bytes: \0\255\n")

  local st = vm:stat("/tmp/note")
  t:assert_eq(st.entry_type, "file")
  t:assert_eq(st.size, 14)
  t:assert_eq(st.perm, tonumber("644", 8))
end)

test("files of /proc have no size and are read all the same", function(t)
  t:assert_contains(vm:read_file("/proc/cmdline"), "console=ttyS0")
end)

test("directories", function(t)
  vm:mkdir("/tmp/tree/deep", { parents = true })
  vm:write_file("/tmp/tree/b", "")
  vm:write_file("/tmp/tree/a", "")

  local names = {}
  for _, entry in ipairs(vm:listdir("/tmp/tree")) do
    names[#names + 1] = entry.name .. ":" .. entry.entry_type
  end
  t:assert_eq(table.concat(names, " "), "a:file b:file deep:directory")

  vm:rename("/tmp/tree/a", "/tmp/tree/c")
  vm:unlink("/tmp/tree/c")
  local err = t:assert_raises(function() vm:stat("/tmp/tree/c") end)
  t:assert_contains(err, "No such file or directory")
end)

test("an open file has a cursor", function(t)
  local f = vm:open_file("/tmp/log", { read = true, write = true, create = true })
  f:write("first line\nsecond line\n")
  t:assert_eq(f:tell(), 23)

  f:seek(6)
  t:assert_eq(f:read(4), "line")
  t:assert_eq(f:seek(-5, "end"), 18)
  t:assert_eq(f:read_all(), "line\n")
  f:close()
end)

test("follow a file that grows", function(t)
  vm:write_file("/tmp/growing", "old\n")
  local tail = vm:tail_file("/tmp/growing")
  vm:run("echo new >> /tmp/growing"):assert_ok()
  t:assert_eq(tail:read_until("\n"), "new\n")
end)
