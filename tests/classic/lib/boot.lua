-- Boots a VM of a profile; a library of the files beside it.
return function(profile)
  local vm = provium.create(profile)
  return vm:boot { memory = "256M", cpus = 1 }
end
