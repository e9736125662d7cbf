-- How values are shown in messages.
local P = ...

local type, tostring, byte = type, tostring, string.byte
local MAX = 2000

local ESCAPES = { [7] = "\\a", [8] = "\\b", [9] = "\\t", [10] = "\\n", [11] = "\\v",
  [12] = "\\f", [13] = "\\r", [34] = '\\"', [92] = "\\\\" }

-- A string in quotes with every byte readable: printing ASCII as it is, valid UTF-8 as it
-- is, anything else escaped.
local function quote(s)
  local keep_utf8 = utf8.len(s) ~= nil
  local pattern = keep_utf8 and '[%c"\\\127]' or '[%c"\\\127-\255]'
  return '"' .. s:gsub(pattern, function(c)
    local b = byte(c)
    return ESCAPES[b] or string.format("\\x%02x", b)
  end) .. '"'
end

-- The first `MAX` bytes, with a note of how many were left out.
local function cut(s, shown)
  if #s <= MAX then return shown(s) end
  return shown(s:sub(1, MAX)) .. "... (" .. #s .. " bytes)"
end

local function as_is(s) return s end

-- A value in a v2 assertion (L-211): strings bare unless they hold non-printing bytes.
function P.show(v)
  if type(v) ~= "string" then return tostring(v) end
  if v:find("[%c\127]") or not utf8.len(v) then return cut(v, quote) end
  return cut(v, as_is)
end

-- A value in a classic assertion (C-046): strings always quoted and escaped.
function P.show_quoted(v)
  if type(v) == "string" then return cut(v, quote) end
  return tostring(v)
end

P.quote = quote

-- "a string", "an integer", ... for "got ..." in messages.
function P.kind(v)
  if v == nil then return "nil" end
  return math.type(v) or P.handle_type(v) or type(v)
end

-- The type name of a handle ("VM"), or nil for anything else.
function P.handle_type(v)
  if type(v) ~= "userdata" then return nil end
  return tostring(v):match("^(%a+)%(")
end
