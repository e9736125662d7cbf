-- Sockets: unix, IPv4, options, messages with descriptors, netlink.
local linux = require "linux"
local fails = linux.fails
local out = linux.out

local vm = provium:vm("a", "minimal"):boot()
local k = linux.on(vm)
local UNIX, INET, NETLINK = 1, 2, 16
local STREAM, DGRAM, RAW, SEQPACKET, NONBLOCK = 1, 2, 3, 5, 2048

vm:run("ip link set lo up"):assert_ok()

local function loopback(port) return string.pack("<I2>I2I4", INET, port, 0x7f000001) .. ("\0"):rep(8) end
local function unix(path) return string.pack("<I2", UNIX) .. path .. "\0" end

test("socketpair: send, receive, shut down", function(t)
  local a, b = linux.pair(select(2, k.socketpair(UNIX, STREAM, 0, out(8))))
  t:assert_eq(k.sendto(a, "hello", 5, 0, 0, 0), 5)
  local MSG_PEEK = 2
  local n, text = k.recvfrom(b, out(16), 16, MSG_PEEK, 0, 0)
  t:assert_eq(text:sub(1, n), "hello")
  n, text = k.recvfrom(b, out(16), 16, 0, 0, 0)
  t:assert_eq(text:sub(1, n), "hello")
  k.shutdown(a, 1)
  t:assert_eq(k.read(b, out(1), 1), 0)
  fails("EPIPE", k.try.write(a, "x", 1))
  fails("EINVAL", k.try.shutdown(a, 9))
  fails("EOPNOTSUPP", k.try.socketpair(INET, STREAM, 0, out(8)))
  fails("ENOTSOCK", k.try.sendto(k.memfd_create("m", 0), "x", 1, 0, 0, 0))
end)

test("socket: what the kernel refuses", function(t)
  fails("EAFNOSUPPORT", k.try.socket(200, STREAM, 0))
  fails("EINVAL", k.try.socket(UNIX, 99, 0))
  fails("EPROTONOSUPPORT", k.try.socket(INET, STREAM, 17))
  t:assert(k.socket(INET, RAW, 1) > 2)
  local w = linux.on(vm:spawn_worker())
  w.setuid(1000)
  fails("EPERM", w.try.socket(INET, RAW, 1))
  fails("EACCES", w.try.bind(w.socket(INET, STREAM, 0), loopback(80), 16))
end)

test("TCP over the loopback: bind, listen, connect, accept4", function(t)
  local server = k.socket(INET, STREAM | NONBLOCK, 0)
  k.bind(server, loopback(0), 16)
  k.listen(server, 4)
  fails("EAGAIN", k.try.accept4(server, 0, 0, 0))
  local _, name = k.getsockname(server, out(16), string.pack("<I4", 16))
  local port = string.unpack(">I2", name, 3)
  t:assert(port > 1024)
  local client = k.socket(INET, STREAM, 0)
  k.connect(client, loopback(port), 16)
  local _, peer = k.getpeername(client, out(16), string.pack("<I4", 16))
  t:assert_eq(string.unpack(">I2", peer, 3), port)
  local accepted, from = k.accept4(server, out(16), string.pack("<I4", 16), 0)
  t:assert_eq(string.unpack("<I2", from), INET)
  k.write(client, "over tcp", 8)
  local n, text = k.read(accepted, out(32), 32)
  t:assert_eq(text:sub(1, n), "over tcp")
  fails("EADDRINUSE", k.try.bind(k.socket(INET, STREAM, 0), loopback(port), 16))
  fails("EISCONN", k.try.connect(client, loopback(port), 16))
  fails("EINVAL", k.try.bind(client, loopback(0), 4))
  fails("EADDRNOTAVAIL", k.try.bind(k.socket(INET, STREAM, 0),
    string.pack("<I2>I2I4", INET, 0, 0x08080808) .. ("\0"):rep(8), 16))
  k.close(server)
  fails("ECONNREFUSED", k.try.connect(k.socket(INET, STREAM, 0), loopback(port), 16))
  fails("ENOTCONN", k.try.getpeername(k.socket(INET, STREAM, 0), out(16), string.pack("<I4", 16)))
  fails("EOPNOTSUPP", k.try.listen(k.socket(INET, DGRAM, 0), 1))
end)

test("a blocked accept ends with the connection", function(t)
  local server = k.socket(INET, STREAM, 0)
  k.bind(server, loopback(0), 16)
  k.listen(server, 1)
  local _, name = k.getsockname(server, out(16), string.pack("<I4", 16))
  local waiting = k.start.accept(server, 0, 0)
  t:assert(not waiting:done())
  local client = k.socket(INET, STREAM, 0)
  k.connect(client, loopback((string.unpack(">I2", name, 3))), 16)
  -- Its number is reserved when the call begins to wait, so it may be below the client's.
  local accepted = waiting:await("10s").ret
  t:assert(accepted >= 0 and accepted ~= client, accepted)
end)

test("UDP: sendto, recvfrom, message boundaries", function(t)
  local a, b = k.socket(INET, DGRAM, 0), k.socket(INET, DGRAM | NONBLOCK, 0)
  k.bind(b, loopback(5353), 16)
  k.sendto(a, "one", 3, 0, loopback(5353), 16)
  k.sendto(a, "second", 6, 0, loopback(5353), 16)
  local n, text, from = k.recvfrom(b, out(2), 2, 0x20, out(16), string.pack("<I4", 16))
  t:assert_eq(n .. text, "3on", "MSG_TRUNC tells the whole length")
  t:assert_eq(string.unpack(">I4", from, 5), 0x7f000001)
  n, text = k.recvfrom(b, out(16), 16, 0, 0, 0)
  t:assert_eq(text:sub(1, n), "second")
  fails("EAGAIN", k.try.recvfrom(b, out(16), 16, 0, 0, 0))
  fails("EDESTADDRREQ", k.try.write(a, "x", 1))
  fails("EMSGSIZE", k.try.sendto(a, ("x"):rep(70000), 70000, 0, loopback(5353), 16))
  fails("EINVAL", k.try.sendto(a, "x", 1, 0, loopback(5353), 3))
end)

test("getsockopt, setsockopt", function(t)
  local SOL_SOCKET, TYPE, ERROR, RCVBUF, TIMEO, REUSEADDR = 1, 3, 4, 8, 20, 2
  local fd = k.socket(INET, DGRAM, 0)
  local function option(name)
    return string.unpack("<i4", select(2, k.getsockopt(fd, SOL_SOCKET, name, out(4), string.pack("<I4", 4))))
  end
  t:assert_eq(option(TYPE), DGRAM)
  t:assert_eq(option(ERROR), 0)
  k.setsockopt(fd, SOL_SOCKET, RCVBUF, string.pack("<i4", 20000), 4)
  t:assert_eq(option(RCVBUF), 40000, "the kernel doubles it")
  k.setsockopt(fd, SOL_SOCKET, REUSEADDR, string.pack("<i4", 1), 4)
  t:assert_eq(option(REUSEADDR), 1)
  k.setsockopt(fd, SOL_SOCKET, TIMEO, string.pack("<i8i8", 0, 100000), 16)
  fails("EAGAIN", k.try.recvfrom(fd, out(1), 1, 0, 0, 0))
  fails("ENOPROTOOPT", k.try.getsockopt(fd, SOL_SOCKET, 9999, out(4), string.pack("<I4", 4)))
  fails("EINVAL", k.try.setsockopt(fd, SOL_SOCKET, RCVBUF, string.pack("<i4", 1), 2))
  fails("EDOM", k.try.setsockopt(fd, SOL_SOCKET, TIMEO, string.pack("<i8i8", 0, 2000000), 16))
end)

-- struct msghdr over one buffer and a control block.
local function message(part, control)
  local size = type(part) == "string" and #part or #part.bytes
  local vector = linux.struct(string.pack("<I8I8", 0, size), { [0] = part })
  local inside = { [16] = vector }
  local length = 0
  if control then
    inside[32], length = control, type(control) == "string" and #control or #control.bytes
  end
  return linux.struct(string.pack("<I8I4I4I8I8I8I8I4I4", 0, 0, 0, 0, 1, 0, length, 0, 0), inside, true)
end

test("sendmsg hands a descriptor to another process's socket", function(t)
  local a, b = linux.pair(select(2, k.socketpair(UNIX, SEQPACKET, 0, out(8))))
  local w = linux.on(vm:spawn_worker())
  vm:write_file("/tmp/handed", "content")
  local fd = k.openat(linux.AT_FDCWD, "/tmp/handed", 0, 0)
  local SCM_RIGHTS = 1
  local rights = string.pack("<I8i4i4i4i4", 20, 1, SCM_RIGHTS, fd, 0)
  t:assert_eq(k.sendmsg(a, message("take", rights), 0), 4)
  local n, _, control, text = w.recvmsg(b, message(linux.out(16), linux.out(24)), 0)
  t:assert_eq(text:sub(1, n), "take")
  local length, level, kind, received = string.unpack("<I8i4i4i4", control)
  t:assert_eq(length .. " " .. level .. " " .. kind, "20 1 1")
  local _, content = w.pread64(received, out(7), 7, 0)
  t:assert_eq(content, "content")
  local bad = string.pack("<I8i4i4i4i4", 20, 1, SCM_RIGHTS, 9999, 0)
  fails("EBADF", k.try.sendmsg(a, message("x", bad), 0))
  fails("EINVAL", k.try.sendmsg(a, message("x", string.pack("<I8i4i4i4i4", 4, 1, 1, fd, 0)), 0))
end)

test("unix sockets in the file system", function(t)
  local server = k.socket(UNIX, STREAM, 0)
  local path = unix("/tmp/sock")
  k.bind(server, path, #path)
  t:assert_eq(vm:stat("/tmp/sock").entry_type, "socket")
  local client = k.socket(UNIX, STREAM, 0)
  fails("ECONNREFUSED", k.try.connect(client, path, #path))
  k.listen(server, 1)
  k.connect(client, path, #path)
  local accepted = k.accept(server, 0, 0)
  local SO_PEERCRED = 17
  local _, cred = k.getsockopt(accepted, 1, SO_PEERCRED, out(12), string.pack("<I4", 12))
  t:assert_eq(string.unpack("<i4", cred), k.getpid())
  fails("EADDRINUSE", k.try.bind(k.socket(UNIX, STREAM, 0), path, #path))
  fails("ENOENT", k.try.connect(k.socket(UNIX, STREAM, 0), unix("/tmp/nosock"), #unix("/tmp/nosock")))
  fails("EPROTOTYPE", k.try.connect(k.socket(UNIX, DGRAM, 0), path, #path))
end)

test("netlink: the kernel lists its links", function(t)
  local fd = k.socket(NETLINK, RAW, 0)
  local RTM_GETLINK, REQUEST_DUMP, NEWLINK = 18, 0x301, 16
  local ask = string.pack("<I4I2I2I4I4", 32, RTM_GETLINK, REQUEST_DUMP, 1, 0) .. ("\0"):rep(16)
  k.sendto(fd, ask, 32, 0, string.pack("<I2I2I4I4", NETLINK, 0, 0, 0), 12)
  local n, answer = k.recvfrom(fd, out(8192), 8192, 0, 0, 0)
  local length, kind = string.unpack("<I4I2", answer)
  t:assert(n >= length and kind == NEWLINK, "message of type " .. kind)
  t:assert_contains(answer, "lo\0")
  fails("EPROTONOSUPPORT", k.try.socket(NETLINK, RAW, 999))
end)

test("sendmmsg sends several messages in one call", function(t)
  local a, b = linux.pair(select(2, k.socketpair(UNIX, DGRAM, 0, out(8))))
  local function entry(text, at, inside)
    inside[at + 16] = linux.struct(string.pack("<I8I8", 0, #text), { [0] = text })
    return string.pack("<I8I4I4I8I8I8I8I4I4I4I4", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
  end
  local inside = {}
  local bytes = entry("first", 0, inside) .. entry("2nd", 64, inside)
  local n, after = k.sendmmsg(a, linux.struct(bytes, inside, true), 2, 0)
  t:assert_eq(n, 2)
  t:assert_eq(string.unpack("<I4", after, 57) .. string.unpack("<I4", after, 121), "53")
  local r, text = k.read(b, out(16), 16)
  t:assert_eq(text:sub(1, r), "first")
  fails("EBADF", k.try.sendmmsg(9999, linux.struct(bytes, inside), 2, 0))
end)
