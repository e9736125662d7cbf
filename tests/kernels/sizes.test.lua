-- The default kernel boots to its agent in small and large machines, with one processor and several.
local MIB = 1024 * 1024

for _, cpus in ipairs { 1, 4 } do
  for _, memory in ipairs { "64M", "96M", "128M", "256M", "1G", "4G" } do
    test(("%s, %d vCPU"):format(memory, cpus), function(t)
      local vm = provium:vm("sized", "minimal", { memory = memory, cpus = cpus, cold = true }):boot()
      t:assert_eq(vm:run("grep -c ^processor /proc/cpuinfo"):assert_ok().stdout, cpus .. "\n")
      local total = tonumber(vm:read_file("/proc/meminfo"):match("MemTotal:%s+(%d+) kB")) * 1024
      local number, unit = memory:match("(%d+)(%a)")
      local size = tonumber(number) * (unit == "G" and 1024 or 1) * MIB
      -- What the kernel keeps for itself is at most half of the smallest machine, and little of a large one.
      t:assert(total < size and total > size * 0.9 - 40 * MIB, ("MemTotal %d of %d"):format(total, size))
    end)
  end
end

for _, cpus in ipairs { 2, 8 } do
  test(("%d vCPUs all run"):format(cpus), function(t)
    local vm = provium:vm("smp", "minimal", { cpus = cpus, cold = true }):boot()
    for cpu = 0, cpus - 1 do
      t:assert_eq(vm:run(("taskset -c %d sh -c 'cut -d\" \" -f39 /proc/self/stat'"):format(cpu)):assert_ok().stdout,
        cpu .. "\n")
    end
  end)
end
