-- Two machines in one test: each has its own kernel, files, processes and clock.

local lab = provium
lab:vm("one", "minimal", { memory = "256M" })
lab:vm("two", "minimal", { memory = "256M", cpus = 2 })
lab:boot() -- both at once

test("they are different machines", function(t)
  t:assert_neq(lab.one, lab.two)
  t:assert_neq(lab.one:read_file("/proc/sys/kernel/random/boot_id"),
    lab.two:read_file("/proc/sys/kernel/random/boot_id"))
end)

test("each has what it was given", function(t)
  t:assert_eq(lab.one:run("nproc").stdout, "1\n")
  t:assert_eq(lab.two:run("nproc").stdout, "2\n")
end)

test("files do not leak from one to the other", function(t)
  lab.one:write_file("/tmp/mine", "x")
  t:assert_raises(function() lab.two:read_file("/tmp/mine") end)
end)

test("carry a file across", function(t)
  lab.one:run("head -c 100000 /dev/urandom > /tmp/blob"):assert_ok()
  lab.two:write_file("/tmp/blob", lab.one:read_file("/tmp/blob"))
  t:assert_eq(lab.one:run("md5sum /tmp/blob").stdout, lab.two:run("md5sum /tmp/blob").stdout)
end)

test("a test may have a machine of its own", function(t)
  -- Declared inside a test, it belongs to the test and is gone when the test ends.
  local vm = provium:vm("three", "minimal", { memory = "128M" }):boot()
  t:assert_eq(vm:state(), "booted")
  lab.one:shutdown()
  t:assert_eq(lab.one:state(), "shutdown")
  t:assert_eq(lab.two:state(), "booted")
end)
