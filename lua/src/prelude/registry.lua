-- The one table of everything an author can call: class, name, signature, documentation and
-- the specification row behind it. Native functions come with their entry from Rust, those
-- written here register themselves through `def`. The reference manual and the editor
-- stubs are printed from this table.
local P, N = ...

local entries = {}
local methods = {}
P.entries, P.methods = entries, methods

local function class_of(name)
  local class = methods[name]
  if not class then
    class = {}
    methods[name] = class
  end
  return class
end

-- What a native answers is handed on, awaited, or raised at the author's line (tasks.lua).
local function checked(raw)
  return function(...) return P.finish(raw(...)) end
end

-- Registers a function written in Lua. `class` is a handle type ("VM"), a library ("json")
-- or "" for globals.
function P.def(class, name, signature, doc, fn)
  entries[#entries + 1] = { class = class, name = name, signature = signature, doc = doc }
  class_of(class)[name] = fn
  return fn
end

-- A second name for a registered function.
function P.alias(class, name, target)
  local fn = class_of(class)[target]
  return P.def(class, name, "= " .. target, "The same as `" .. target .. "`.", fn)
end

-- Natives as the author gets them, and as they are.
P.native, P.raw = {}, {}
for _, entry in ipairs(N.table) do
  local fn = checked(entry.call)
  local class = P.native[entry.class]
  if not class then
    class = {}
    P.native[entry.class], P.raw[entry.class] = class, {}
  end
  class[entry.name], P.raw[entry.class][entry.name] = fn, entry.call
  -- Natives of a class starting with "_" are the prelude's own.
  if entry.class:sub(1, 1) ~= "_" then
    P.def(entry.class, entry.name, entry.signature, entry.doc, fn)
  end
end
