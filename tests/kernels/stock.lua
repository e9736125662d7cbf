-- What every stock kernel has to do, whatever its version and configuration.
local stock = {}

--- Registers the tests of one profile; `pattern` is what its `uname -r` must match.
function stock.tests(profile, pattern)
  for _, cpus in ipairs { 1, 4 } do
    test(("%s with %d vCPU"):format(profile, cpus), function(t)
      local vm = provium:vm("other", profile, { cpus = cpus }):boot()
      local release = vm:run("uname -r"):assert_ok().stdout
      t:assert(release:find(pattern), release)
      vm:write_file("/tmp/x", "written")
      t:assert_eq(vm:read_file("/tmp/x"), "written")
      t:assert_eq(vm:syscall(39).ret > 1, true)
      vm:reset()
      t:assert_contains(t:assert_raises(function() vm:stat("/tmp/x") end), "ENOENT")
      t:assert(vm:run("dmesg"):assert_ok().stdout:find("Linux version " .. release:sub(1, -2), 1, true))
      t:assert_contains(vm:run("ls /sys/bus/virtio/drivers"):assert_ok().stdout, "vmw_vsock_virtio_transport")
      -- All that the kernel holds for an error is that there is no PCI and no machine check.
      local trouble = vm:run("dmesg -r | grep -E '^<[0-3]>' | grep -v -e 'PCI: Fatal: No config' -e 'mce: Unable'").stdout
      t:assert_eq(trouble, "")
      t:assert(vm:power_button(), "the guest did not obey its power button")
    end)
  end
end

return stock
