-- Pipes, poll, select, epoll, eventfd, timerfd, signalfd, POSIX timers and clocks.
local linux = require "linux"
local fails = linux.fails
local out = linux.out

local vm = provium:vm("a", "minimal"):boot()
local k = linux.on(vm)
local NONBLOCK = linux.O_NONBLOCK

local function pipe(flags)
  return linux.pair(select(2, k.pipe2(out(8), flags or 0)))
end

test("pipe2: data, end, broken, full", function(t)
  local reader, writer = pipe(NONBLOCK)
  fails("EAGAIN", k.try.read(reader, out(1), 1))
  t:assert_eq(k.write(writer, "abc", 3), 3)
  local n, text = k.read(reader, out(8), 8)
  t:assert_eq(text:sub(1, n), "abc")
  local F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
  t:assert_eq(k.fcntl(writer, F_SETPIPE_SZ, 4096), 4096)
  t:assert_eq(k.write(writer, ("x"):rep(8192), 8192), 4096)
  fails("EAGAIN", k.try.write(writer, "x", 1))
  t:assert_eq(k.fcntl(writer, F_GETPIPE_SZ, 0), 4096)
  k.close(writer)
  t:assert_eq(k.read(reader, out(8192), 8192), 4096)
  t:assert_eq(k.read(reader, out(1), 1), 0, "the end of the pipe")
  fails("EINVAL", k.try.pipe2(out(8), 1))
  fails("EFAULT", k.try.pipe2(8, 0))
  -- A write to a pipe without reader is EPIPE once SIGPIPE is ignored, as it is in the agent.
  local r2, w2 = pipe()
  k.close(r2)
  fails("EPIPE", k.try.write(w2, "x", 1))
end)

test("tee and vmsplice", function(t)
  local r1, w1 = pipe()
  local r2, w2 = pipe()
  k.write(w1, "both", 4)
  t:assert_eq(k.tee(r1, w2, 4, 0), 4)
  local _, a = k.read(r1, out(4), 4)
  local _, b = k.read(r2, out(4), 4)
  t:assert_eq(a .. b, "bothboth")
  local vector, count = linux.iov { "in", "to" }
  t:assert_eq(k.vmsplice(w1, vector, count, 0), 4)
  fails("EINVAL", k.try.tee(r1, w1, 4, 0))
  fails("EBADF", k.try.tee(9999, w1, 4, 0))
  fails("EBADF", k.try.vmsplice(9999, vector, count, 0))
  fails("EINVAL", k.try.vmsplice(w1, vector, count, 1 << 28))
end)

test("poll and ppoll", function(t)
  local reader, writer = pipe()
  local POLLIN, POLLOUT, POLLHUP, POLLNVAL = 1, 4, 16, 32
  local function polled(fds, timeout)
    local bytes = {}
    for i, fd in ipairs(fds) do bytes[i] = string.pack("<i4i2i2", fd[1], fd[2], 0) end
    local n, answer = k.poll(linux.inout(table.concat(bytes)), #fds, timeout)
    local got = {}
    for i = 1, #fds do got[i] = string.unpack("<i2", answer, i * 8 - 1) end
    return n, got
  end
  local n, got = polled({ { reader, POLLIN }, { writer, POLLOUT } }, 0)
  t:assert_eq(n .. ":" .. table.concat(got, ","), "1:0,4")
  k.write(writer, "x", 1)
  n, got = polled({ { reader, POLLIN }, { 9999, POLLIN } }, 1000)
  t:assert_eq(n .. ":" .. table.concat(got, ","), "2:1,32")
  k.close(writer)
  k.read(reader, out(1), 1)
  n, got = polled({ { reader, POLLIN } }, -1)
  t:assert_eq(n .. ":" .. got[1], "1:" .. POLLHUP)
  t:assert_eq(POLLNVAL, 32)
  t:assert_eq(k.ppoll(0, 0, linux.timespec(0.01), 0, 8), 0)
  fails("EINVAL", k.try.ppoll(0, 0, string.pack("<i8i8", -1, 0), 0, 8))
  fails("EFAULT", k.try.poll(8, 1, 0))
  fails("EINVAL", k.try.poll(0, 1 << 30, 0))
end)

test("pselect6", function(t)
  local reader, writer = pipe()
  local function set(...)
    local bits = {}
    for i = 1, 16 do bits[i] = 0 end
    for _, fd in ipairs { ... } do bits[fd // 64 + 1] = bits[fd // 64 + 1] | 1 << fd % 64 end
    return string.pack("<" .. ("I8"):rep(16), table.unpack(bits))
  end
  local n, readable, writable =
    k.pselect6(writer + 1, linux.inout(set(reader)), linux.inout(set(writer)), 0, linux.timespec(0), 0)
  t:assert_eq(n, 1)
  t:assert(readable == set())
  t:assert(writable == set(writer))
  local closed = k.dup(reader)
  k.close(closed)
  fails("EBADF", k.try.pselect6(closed + 1, set(closed), 0, 0, linux.timespec(0), 0))
  fails("EINVAL", k.try.pselect6(-1, 0, 0, 0, linux.timespec(0), 0))
end)

test("epoll: level, edge, one-shot", function(t)
  local ADD, DEL, MOD = 1, 2, 3
  local IN, ET, ONESHOT = 1, 1 << 31, 1 << 30
  local ep = k.epoll_create1(linux.O_CLOEXEC)
  local reader, writer = pipe()
  local function event(mask, data) return string.pack("<I4I8", mask, data) end
  local function waited(timeout)
    local n, bytes = k.epoll_wait(ep, out(12 * 4), 4, timeout)
    if n == 0 then return 0 end
    local mask, data = string.unpack("<I4I8", bytes)
    return n, mask, data
  end
  k.epoll_ctl(ep, ADD, reader, event(IN, 0x1234567890))
  t:assert_eq(waited(0), 0)
  k.write(writer, "xy", 2)
  local n, mask, data = waited(-1)
  t:assert_eq(n .. " " .. mask .. " " .. data, "1 1 " .. 0x1234567890)
  t:assert_eq(waited(0), 1, "level-triggered: still ready")
  k.epoll_ctl(ep, MOD, reader, event(IN | ET, 7))
  t:assert_eq(select(3, waited(0)), 7)
  t:assert_eq(waited(0), 0, "edge-triggered: told once")
  k.epoll_ctl(ep, MOD, reader, event(IN | ONESHOT, 8))
  t:assert_eq(waited(0), 1)
  k.write(writer, "z", 1)
  t:assert_eq(waited(0), 0, "one-shot: disabled after the first")
  fails("EEXIST", k.try.epoll_ctl(ep, ADD, reader, event(IN, 0)))
  k.epoll_ctl(ep, DEL, reader, 0)
  fails("ENOENT", k.try.epoll_ctl(ep, DEL, reader, 0))
  fails("EINVAL", k.try.epoll_ctl(ep, ADD, ep, event(IN, 0)))
  fails("EINVAL", k.try.epoll_ctl(ep, 77, reader, event(IN, 0)))
  fails("EBADF", k.try.epoll_ctl(ep, ADD, 9999, event(IN, 0)))
  local file = k.openat(linux.AT_FDCWD, "/proc/version", 0, 0)
  fails("EPERM", k.try.epoll_ctl(ep, ADD, k.memfd_create("m", 0), event(IN, 0)))
  fails("EINVAL", k.try.epoll_wait(ep, out(12), 0, 0))
  fails("EINVAL", k.try.epoll_wait(file, out(12), 1, 0))
  fails("EINVAL", k.try.epoll_create1(1))
  fails("EINVAL", k.try.epoll_create(0))
end)

test("epoll wakes a call that waits", function(t)
  local ep = k.epoll_create1(0)
  local reader, writer = pipe()
  k.epoll_ctl(ep, 1, reader, string.pack("<I4I8", 1, 99))
  local waiting = k.start.epoll_pwait(ep, out(12), 1, -1, 0, 8)
  t:assert(not waiting:done())
  k.write(writer, "!", 1)
  local r = waiting:await("10s")
  t:assert_eq(r.ret .. " " .. string.unpack("<I8", r.out_bufs[1], 5), "1 99")
end)

test("eventfd2: counter and semaphore", function(t)
  local SEMAPHORE = 1
  local fd = k.eventfd2(3, NONBLOCK)
  local function add(n) return k.try.write(fd, string.pack("<I8", n), 8) end
  add(4)
  t:assert_eq(string.unpack("<I8", select(2, k.read(fd, out(8), 8))), 7)
  fails("EAGAIN", k.try.read(fd, out(8), 8))
  fails("EINVAL", k.try.read(fd, out(4), 4))
  fails("EINVAL", add(-1))
  t:assert_eq(add(-2).ret, 8)
  fails("EAGAIN", add(1))
  local s = k.eventfd2(2, SEMAPHORE | NONBLOCK)
  for _ = 1, 2 do t:assert_eq(string.unpack("<I8", select(2, k.read(s, out(8), 8))), 1) end
  fails("EAGAIN", k.try.read(s, out(8), 8))
  fails("EINVAL", k.try.eventfd2(0, 0x40))
end)

test("timerfd counts what has passed", function(t)
  local MONOTONIC, ABSTIME = 1, 1
  local fd = k.timerfd_create(MONOTONIC, NONBLOCK)
  fails("EAGAIN", k.try.read(fd, out(8), 8))
  k.timerfd_settime(fd, 0, linux.timespec(0.25) .. linux.timespec(0.1), 0)
  vm:clock():sleep("1.12s")
  local _, count = k.read(fd, out(8), 8)
  -- Expiries at 0.1 s, 0.35 s, 0.6 s, 0.85 s, 1.1 s.
  t:assert_eq(string.unpack("<I8", count), 5)
  local _, left = k.timerfd_gettime(fd, out(32))
  local seconds, ns = string.unpack("<i8i8", left, 17)
  t:assert(seconds == 0 and ns > 0 and ns <= 250000000, "next in " .. ns .. " ns")
  -- A time that has passed expires at once.
  k.timerfd_settime(fd, ABSTIME, linux.timespec(0) .. string.pack("<i8i8", 0, 1), 0)
  t:assert_eq(string.unpack("<I8", select(2, k.read(fd, out(8), 8))), 1)
  fails("EINVAL", k.try.timerfd_create(99, 0))
  fails("EINVAL", k.try.timerfd_settime(fd, 0, string.pack("<i8i8i8i8", 0, 0, 0, 10 ^ 9 | 0), 0))
  fails("EINVAL", k.try.timerfd_gettime(0, out(32)))
  fails("EBADF", k.try.timerfd_gettime(9999, out(32)))
end)

test("signalfd4 reads blocked signals", function(t)
  local worker = vm:spawn_worker()
  local w = linux.on(worker)
  local USR1, USR2, BLOCK = 10, 12, 0
  local set = linux.sigset(USR1, USR2)
  local _, before = w.rt_sigprocmask(BLOCK, set, out(8), 8)
  t:assert_eq(string.unpack("<I8", before) & (1 << 9), 0)
  local fd = w.signalfd4(-1, set, 8, NONBLOCK)
  fails("EAGAIN", w.try.read(fd, out(128), 128))
  -- Directed at the thread that makes these calls, so that no other one takes it.
  w.tgkill(w.getpid(), w.gettid(), USR2)
  local _, pending = w.rt_sigpending(out(8), 8)
  t:assert_eq(string.unpack("<I8", pending), 1 << (USR2 - 1))
  local n, info = w.read(fd, out(128), 128)
  local signo, _, _, pid = string.unpack("<I4i4i4I4", info)
  t:assert_eq(n .. " " .. signo .. " " .. pid, "128 12 " .. w.getpid())
  fails("EINVAL", w.try.read(fd, out(64), 64))
  fails("EINVAL", w.try.signalfd4(-1, set, 4, 0))
  fails("EBADF", w.try.signalfd4(9999, set, 8, 0))
  fails("EINVAL", w.try.signalfd4(0, set, 8, 0))
end)

test("clocks: gettime, getres, settime, nanosleep", function(t)
  local REALTIME, MONOTONIC, BOOTTIME = 0, 1, 7
  local function now(id) return string.unpack("<i8i8", select(2, k.clock_gettime(id, out(16)))) end
  local before, nb = now(MONOTONIC)
  k.clock_nanosleep(MONOTONIC, 0, linux.timespec(0.5), 0)
  local after, na = now(MONOTONIC)
  local slept = (after - before) + (na - nb) / 1e9
  t:assert(slept >= 0.5 and slept < 5, "slept " .. slept)
  t:assert(now(BOOTTIME) >= after)
  t:assert_eq(string.unpack("<i8", select(2, k.clock_getres(MONOTONIC, out(16))), 9), 1)
  k.clock_settime(REALTIME, string.pack("<i8i8", 1234567890, 0))
  t:assert_eq((now(REALTIME)), 1234567890)
  local _, tv = k.gettimeofday(out(16), 0)
  t:assert_eq((string.unpack("<i8", tv)), 1234567890)
  t:assert_eq(k.time(0), 1234567890)
  fails("EINVAL", k.try.clock_gettime(99, out(16)))
  fails("EINVAL", k.try.clock_settime(MONOTONIC, linux.timespec(1)))
  fails("EFAULT", k.try.clock_gettime(REALTIME, 8))
  fails("EINVAL", k.try.nanosleep(string.pack("<i8i8", 0, -1), 0))
  local w = linux.on(vm:spawn_worker())
  w.setuid(1000)
  fails("EPERM", w.try.clock_settime(REALTIME, linux.timespec(1)))
end)

test("timer_create: a signal by the clock", function(t)
  local w = linux.on(vm:spawn_worker())
  local USR1, MONOTONIC, SIGNAL, THREAD = 10, 1, 0, 4
  w.rt_sigprocmask(0, linux.sigset(USR1), 0, 8)
  -- struct sigevent: value, signo, notify, tid.
  local event = string.pack("<i8i4i4i4", 77, USR1, SIGNAL | THREAD, w.gettid()) .. ("\0"):rep(44)
  local _, id = w.timer_create(MONOTONIC, event, out(4))
  id = string.unpack("<i4", id)
  w.timer_settime(id, 0, linux.timespec(0) .. linux.timespec(0.2), 0)
  local _, left = w.timer_gettime(id, out(32))
  t:assert(string.unpack("<i8", left, 25) > 0)
  local got, info = w.rt_sigtimedwait(linux.sigset(USR1), out(128), linux.timespec(5), 8)
  t:assert_eq(got, USR1)
  t:assert_eq(string.unpack("<i8", info, 25), 77, "the value given at creation")
  t:assert_eq(w.timer_getoverrun(id), 0)
  w.timer_delete(id)
  fails("EINVAL", w.try.timer_delete(id))
  fails("EINVAL", w.try.timer_settime(id, 0, linux.timespec(0) .. linux.timespec(1), 0))
  fails("EINVAL", w.try.timer_create(99, 0, out(4)))
  fails("EAGAIN", w.try.rt_sigtimedwait(linux.sigset(USR1), 0, linux.timespec(0.05), 8))
end)
