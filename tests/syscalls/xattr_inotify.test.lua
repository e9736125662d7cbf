-- Extended attributes, inotify, fanotify's refusals, file handles.
local linux = require "linux"
local fails = linux.fails
local AT = linux.AT_FDCWD

local vm = provium:vm("a", "minimal"):boot()
local k = linux.on(vm)
vm:mkdir("/tmp/x")
-- /tmp is a tmpfs: it has trusted and security attributes, and user ones from Linux 6.6 on.
vm:write_file("/tmp/x/file", "")

test("setxattr, getxattr, listxattr, removexattr", function(t)
  local CREATE, REPLACE = 1, 2
  k.setxattr("/tmp/x/file", "trusted.colour", "green", 5, CREATE)
  local n, value = k.getxattr("/tmp/x/file", "trusted.colour", linux.out(32), 32)
  t:assert_eq(value:sub(1, n), "green")
  t:assert_eq(k.getxattr("/tmp/x/file", "trusted.colour", 0, 0), 5)
  local length, names = k.listxattr("/tmp/x/file", linux.out(64), 64)
  t:assert_eq(names:sub(1, length), "trusted.colour\0")
  fails("EEXIST", k.try.setxattr("/tmp/x/file", "trusted.colour", "red", 3, CREATE))
  fails("ENODATA", k.try.setxattr("/tmp/x/file", "trusted.shape", "x", 1, REPLACE))
  fails("ENODATA", k.try.getxattr("/tmp/x/file", "trusted.shape", linux.out(8), 8))
  fails("ERANGE", k.try.getxattr("/tmp/x/file", "trusted.colour", linux.out(2), 2))
  fails("EOPNOTSUPP", k.try.setxattr("/tmp/x/file", "nonsense.x", "x", 1, 0))
  fails("ERANGE", k.try.setxattr("/tmp/x/file", "trusted." .. ("n"):rep(300), "x", 1, 0))
  fails("EINVAL", k.try.setxattr("/tmp/x/file", "trusted.y", "x", 1, 64))
  k.removexattr("/tmp/x/file", "trusted.colour")
  fails("ENODATA", k.try.removexattr("/tmp/x/file", "trusted.colour"))
end)

test("trusted attributes are the superuser's", function(t)
  local w = linux.on(vm:spawn_worker())
  w.setuid(1000)
  fails("EPERM", w.try.setxattr("/tmp/x/file", "trusted.mine", "x", 1, 0))
  t:assert_eq(w.listxattr("/tmp/x/file", 0, 0), 0)
end)

test("fsetxattr by descriptor", function(t)
  local fd = k.openat(AT, "/tmp/x/file", linux.O_RDWR, 0)
  k.fsetxattr(fd, "security.provium", "by descriptor", 13, 0)
  local n, value = k.fgetxattr(fd, "security.provium", linux.out(64), 64)
  t:assert_eq(value:sub(1, n), "by descriptor")
  fails("EBADF", k.try.fsetxattr(9999, "security.x", "x", 1, 0))
  k.fremovexattr(fd, "security.provium")
end)

-- Events of an inotify descriptor as {mask, name}.
local function events(fd)
  local n, bytes = k.read(fd, linux.out(4096), 4096)
  local list, at = {}, 1
  while at <= n do
    local _, mask, _, length = string.unpack("<i4I4I4I4", bytes, at)
    list[#list + 1] = { mask = mask, name = bytes:sub(at + 16, at + 15 + length):match("^[^\0]*") }
    at = at + 16 + length
  end
  return list
end

test("inotify tells what happened to whom, in order", function(t)
  local IN_CREATE, IN_MODIFY, IN_DELETE, IN_IGNORED = 0x100, 0x2, 0x200, 0x8000
  local fd = k.inotify_init1(linux.O_NONBLOCK)
  local wd = k.inotify_add_watch(fd, "/tmp/x", IN_CREATE | IN_MODIFY | IN_DELETE)
  t:assert(wd >= 1)
  fails("EAGAIN", k.try.read(fd, linux.out(64), 64))
  vm:run("cd /tmp/x; echo a > made; rm made"):assert_ok()
  local seen = {}
  for i, event in ipairs(events(fd)) do seen[i] = event.mask .. event.name end
  t:assert_eq(table.concat(seen, " "),
    IN_CREATE .. "made " .. IN_MODIFY .. "made " .. IN_DELETE .. "made")
  k.inotify_rm_watch(fd, wd)
  t:assert_eq(events(fd)[1].mask, IN_IGNORED)
  fails("EINVAL", k.try.inotify_rm_watch(fd, wd))
  fails("ENOENT", k.try.inotify_add_watch(fd, "/tmp/none", IN_CREATE))
  fails("EINVAL", k.try.inotify_add_watch(fd, "/tmp", 0))
  fails("EBADF", k.try.inotify_add_watch(9999, "/tmp", IN_CREATE))
  fails("EINVAL", k.try.inotify_add_watch(0, "/tmp", IN_CREATE))
  fails("EINVAL", k.try.inotify_init1(1))
end)

test("a blocked read of inotify ends with the event", function(t)
  local fd = k.inotify_init1(0)
  k.inotify_add_watch(fd, "/tmp/x", 0x100)
  local waiting = k.start.read(fd, linux.out(512), 512)
  t:assert(not waiting:done())
  vm:write_file("/tmp/x/woke", "")
  local r = waiting:await("10s")
  t:assert(r.ret >= 32)
  t:assert_contains(r.out_bufs[1], "woke")
end)

test("name_to_handle_at and open_by_handle_at", function(t)
  local size = 128
  local handle = string.pack("<I4i4", size - 8, 0) .. ("\0"):rep(size - 8)
  local _, got, mount = k.name_to_handle_at(AT, "/tmp/x/file", linux.inout(handle), linux.out(4), 0)
  t:assert(string.unpack("<i4", mount) > 0)
  vm:write_file("/tmp/x/file", "reached")
  local root = k.openat(AT, "/tmp", linux.O_RDONLY, 0)
  local fd = k.open_by_handle_at(root, got, linux.O_RDONLY)
  local _, text = k.read(fd, linux.out(7), 7)
  t:assert_eq(text, "reached")
  fails("EOVERFLOW", k.try.name_to_handle_at(AT, "/tmp/x/file",
    linux.inout(string.pack("<I4i4", 0, 0)), linux.out(4), 0))
  fails("EINVAL", k.try.open_by_handle_at(root, string.pack("<I4i4", 0, 0), 0))
  local w = linux.on(vm:spawn_worker())
  w.setuid(1000)
  fails("EPERM", w.try.open_by_handle_at(root, got, linux.O_RDONLY))
end)
