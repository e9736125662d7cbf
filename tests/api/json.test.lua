-- The json library (lua-api section 16); no guest needed.

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-207: encode", function(t)
  t:assert_eq(json.encode { 1, "two", true }, '[1,"two",true]')
  t:assert_eq(json.encode { [1] = "a", [3] = "c" }, '["a",null,"c"]')
  t:assert_eq(json.encode { b = 1, a = { c = {} } }, '{"a":{"c":{}},"b":1}')
  t:assert_eq(json.encode { [0] = "zero", x = 1 }, '{"0":"zero","x":1}')
  t:assert_eq(json.encode "\"\\\n\t\0é", '"\\"\\\\\\n\\t\\u0000é"')
  t:assert_eq(json.encode(math.mininteger), "-9223372036854775808")
  t:assert_eq(json.decode(json.encode(0.1)), 0.1)
  t:assert_eq(json.encode(nil), "null")
end)

test("L-207: what has no JSON is named by its path", function(t)
  t:assert_contains(raised(t, json.encode, { a = { b = print } }), "a.b")
  t:assert_contains(raised(t, json.encode, { a = 0 / 0 }), "a")
  t:assert_contains(raised(t, json.encode, { x = { 1, math.huge } }), "x")
  t:assert_contains(raised(t, json.encode, { s = "\xff" }), "s")
  t:assert_contains(raised(t, json.encode, { [{}] = 1 }), "key")
  t:assert_contains(raised(t, json.encode, { [1] = 1, [100000000] = 2 }), "100000000")
  local loop = {}
  loop.again = { loop }
  t:assert_contains(raised(t, json.encode, loop), "again")
end)

test("L-208: decode", function(t)
  local v = json.decode '{"a":[1,null,3.5,"\\u00e9\\ud83d\\ude00"],"big":18446744073709551615,"n":null}'
  t:assert_eq(v.a[1], 1)
  t:assert_eq(v.a[2], nil)
  t:assert_eq(v.a[3], 3.5)
  t:assert_eq(v.a[4], "é😀")
  t:assert_eq(v.big, -1)
  t:assert_eq(v.n, nil)
  t:assert_eq(math.type(json.decode "9223372036854775807"), "integer")
  t:assert_eq(math.type(json.decode "18446744073709551616"), "float")
  t:assert_eq(math.type(json.decode "1.0"), "float")
end)

test("L-208: errors give line and column", function(t)
  for text, place in pairs { ['{"a":\n  x}'] = "line 2", ["[1,2"] = "column", ["1 2"] = "column",
    ['"\\q"'] = "column", [""] = "line 1", ["{a:1}"] = "column", ["[1,]"] = "column" } do
    t:assert_contains(raised(t, json.decode, text), place, text)
  end
  t:assert_contains(raised(t, json.decode, 5), "json.decode")
end)
