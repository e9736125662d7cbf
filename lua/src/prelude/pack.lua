-- provium.pack / provium.unpack: the classic grammar of typed tokens, or Lua's own
-- (lua-api L-018, classic-api C-011..C-013).
local P = ...

local type, select, tointeger = type, select, math.tointeger
local raise = P.raise
local lua_pack, lua_unpack = string.pack, string.unpack

local WIDTH = { u8 = 1, i8 = 1, u16 = 2, i16 = 2, u32 = 4, i32 = 4, u64 = 8, i64 = 8 }

-- The tokens of a classic format, or nil when the format is Lua's.
local function classic_tokens(fmt)
  local tokens = {}
  for token in fmt:gmatch("%S+") do
    if not WIDTH[token] then return nil end
    tokens[#tokens + 1] = token
  end
  return #tokens > 0 and tokens or nil
end

-- The integer for one token, range-checked: -2^(n-1) .. 2^n-1 for both signs.
local function integer_for(token, position, value)
  local at = "pack: value " .. position .. " for " .. token
  if type(value) ~= "number" then
    raise(at .. " must be a number, got " .. P.kind(value))
  end
  local integer = tointeger(value)
  local bits = WIDTH[token] * 8
  if not integer then
    if bits == 64 and value == math.floor(value) and value >= 2.0 ^ 63 and value < 2.0 ^ 64 then
      return tointeger(value - 2.0 ^ 64)
    end
    raise(at .. " must be an integer, got " .. tostring(value))
  end
  if bits < 64 and (integer < -(1 << (bits - 1)) or integer >= (1 << bits)) then
    raise(at .. " is out of range: " .. integer)
  end
  return integer
end

local function pack_classic(tokens, ...)
  local given = select("#", ...)
  if given ~= #tokens then
    raise("pack: the format has " .. #tokens .. " tokens, got " .. given .. " values")
  end
  local parts, values = {}, { ... }
  for i, token in ipairs(tokens) do
    local integer = integer_for(token, i, values[i])
    local width = WIDTH[token]
    if width < 8 then integer = integer & ((1 << (width * 8)) - 1) end
    parts[i] = width < 8 and lua_pack("<I" .. width, integer) or lua_pack("<i8", integer)
  end
  return table.concat(parts)
end

local function unpack_classic(tokens, data)
  local lua_format, needed = { "<" }, 0
  for i, token in ipairs(tokens) do
    local width = WIDTH[token]
    needed = needed + width
    -- u64 comes back with the same bits, so the signed reading serves both.
    local signed = token:byte(1) == 105 or width == 8
    lua_format[i + 1] = (signed and "i" or "I") .. width
  end
  if #data < needed then
    raise("unpack: needs " .. needed .. " bytes, got " .. #data)
  end
  local values = { lua_unpack(table.concat(lua_format), data) }
  return table.unpack(values, 1, #tokens)
end

-- Raises errors of Lua's own functions at the author's line, without their position.
local function lua_errors(ok, ...)
  if ok then return ... end
  raise((tostring((...)):gsub("^[^\n]-:%d+: ", "")))
end

P.pack = function(fmt, ...)
  if type(fmt) ~= "string" then raise("pack: fmt must be a string, got " .. P.kind(fmt)) end
  local tokens = classic_tokens(fmt)
  if tokens then return pack_classic(tokens, ...) end
  return lua_errors(pcall(lua_pack, fmt, ...))
end

P.unpack = function(fmt, data, ...)
  if type(fmt) ~= "string" then raise("unpack: fmt must be a string, got " .. P.kind(fmt)) end
  if type(data) ~= "string" then
    raise("unpack: data must be a string, got " .. P.kind(data))
  end
  local tokens = classic_tokens(fmt)
  if tokens then return unpack_classic(tokens, data) end
  return lua_errors(pcall(lua_unpack, fmt, data, ...))
end
