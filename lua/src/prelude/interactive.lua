-- What the prompt of `provium repl` needs: run a chunk, show its values.
local P = ...

local type, tostring, pairs = type, tostring, pairs

-- Columns that a table may take on one line, and how deep tables are shown.
local WIDTH, DEPTH = 76, 6

local show

-- The parts of a table as text: its sequence, then its other keys, sorted.
local function parts_of(v, indent, open)
  local parts, count = {}, 0
  for i, item in ipairs(v) do parts[i], count = show(item, indent, open), i end
  local named = {}
  for key, item in pairs(v) do
    if not (math.type(key) == "integer" and key >= 1 and key <= count) then
      local shown = type(key) == "string" and key:match("^[%a_][%w_]*$") or
        "[" .. show(key, indent, open) .. "]"
      named[#named + 1] = shown .. " = " .. show(item, indent, open)
    end
  end
  table.sort(named)
  table.move(named, 1, #named, #parts + 1, parts)
  return parts
end

-- A value as it is typed; a table that does not fit a line takes one for each of its parts.
function show(v, indent, open)
  if type(v) == "string" then return P.quote(v) end
  if type(v) ~= "table" then return tostring(v) end
  local meta = getmetatable(v)
  if type(meta) == "table" and rawget(meta, "__tostring") then return tostring(v) end
  if open[v] then return "<this table again>" end
  if #indent > 2 * DEPTH then return "{...}" end
  open[v] = true
  local parts = parts_of(v, indent .. "  ", open)
  open[v] = nil
  local line = "{" .. table.concat(parts, ", ") .. "}"
  if #indent + #line <= WIDTH and not line:find("\n", 1, true) then return line end
  local inner = "\n" .. indent .. "  "
  return "{" .. inner .. table.concat(parts, "," .. inner) .. ",\n" .. indent .. "}"
end

-- Names that may follow `path` and `mark` in what is being typed: "" for globals, "vm" and ":"
-- for methods. Nothing is called to find them.
function P.complete(path, mark)
  local value = _G
  for name in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return {} end
    value = rawget(value, name)
  end
  local names, seen = {}, {}
  local function add(members)
    if type(members) ~= "table" then return end
    for name, member in pairs(members) do
      local wanted = mark ~= ":" or type(member) == "function"
      if type(name) == "string" and wanted and not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  local class = value == provium and "Lab" or P.handle_type(value)
  if class then add(P.methods[class]) end
  if type(value) == "string" then add(string) end
  if type(value) == "table" then
    add(value)
    local meta = getmetatable(value)
    if type(meta) == "table" then add(rawget(meta, "__index")) end
  end
  table.sort(names)
  return names
end

-- Runs a chunk; answers true and its values as text (nil for none), or false and the message.
function P.evaluate(chunk)
  local results = table.pack(xpcall(chunk, P.catch))
  if not results[1] then
    return false, results[2].message or ("skipped: " .. tostring(results[2].skip))
  end
  if results.n == 1 then return true, nil end
  local parts = {}
  for i = 2, results.n do parts[i - 1] = show(results[i], "", {}) end
  return true, table.concat(parts, "\t")
end
