//! `json.encode` and `json.decode` (lua-api L-207, L-208).
//!
//! Encoding walks raw tables (metatables do not count) and names the key path of whatever has
//! no JSON form. Decoding leaves the grammar to `serde_json` and converts the numbers by the
//! rules of the specification.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mlua::{Lua, Table, Value};
use serde_json::{Number, Value as Json};

use crate::args::{kind, show_key};
use crate::fault::Fault;

/// Deepest nesting that is encoded; `serde_json` reads no deeper either.
const MAX_DEPTH: usize = 127;

/// An array may be this much longer than the values in it before it counts as absurdly sparse.
const MAX_HOLES: i64 = 10_000;

/// `v` as compact JSON.
pub(crate) fn encode(v: &Value) -> Result<String, Fault> {
    let mut encoder = Encoder {
        out: String::new(),
        path: Vec::new(),
        open: Vec::new(),
    };
    encoder.value(v)?;
    Ok(encoder.out)
}

struct Encoder {
    out: String,
    /// Keys from the top down to the value at hand.
    path: Vec<String>,
    /// Tables being written, by identity, to find cycles.
    open: Vec<*const std::ffi::c_void>,
}

impl Encoder {
    fn value(&mut self, v: &Value) -> Result<(), Fault> {
        match v {
            Value::Nil => self.out.push_str("null"),
            Value::Boolean(flag) => self.out.push_str(if *flag { "true" } else { "false" }),
            Value::Integer(int) => {
                // Writing to a String cannot fail.
                let _ = write!(self.out, "{int}");
            }
            Value::Number(float) => match Number::from_f64(*float) {
                Some(number) => self.out.push_str(&number.to_string()),
                None => return Err(self.refuse(&format!("cannot encode {float}"))),
            },
            Value::String(text) => self.string(text)?,
            Value::Table(table) => self.table(table)?,
            other => return Err(self.refuse(&format!("cannot encode a {}", kind(other)))),
        }
        Ok(())
    }

    fn string(&mut self, text: &mlua::LuaString) -> Result<(), Fault> {
        let bytes = text.as_bytes();
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(self.refuse("cannot encode a string that is not valid UTF-8"));
        };
        self.out
            .push_str(&Json::String(text.to_owned()).to_string());
        Ok(())
    }

    fn table(&mut self, table: &Table) -> Result<(), Fault> {
        let identity = table.to_pointer();
        if self.open.contains(&identity) {
            return Err(self.refuse("cannot encode a table that contains itself"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.refuse("cannot encode tables nested this deep"));
        }
        self.open.push(identity);
        match array_length(table)? {
            Some(length) => self.array(table, length)?,
            None => self.object(table)?,
        }
        self.open.pop();
        Ok(())
    }

    fn array(&mut self, table: &Table, length: i64) -> Result<(), Fault> {
        let values = i64::try_from(table.pairs::<Value, Value>().count()).unwrap_or(i64::MAX);
        if length > values.saturating_mul(2).saturating_add(MAX_HOLES) {
            return Err(self.refuse(&format!(
                "cannot encode an array of length {length} with only {values} values"
            )));
        }
        self.out.push('[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(',');
            }
            let value: Value = table.raw_get(index)?;
            self.at(format!("[{index}]"), &value)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn object(&mut self, table: &Table) -> Result<(), Fault> {
        let mut members = BTreeMap::new();
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let name = match &key {
                Value::Integer(int) => int.to_string(),
                Value::String(text) => match text.to_str() {
                    Ok(text) => text.to_owned(),
                    Err(_) => return Err(self.refuse("has a key that is not valid UTF-8")),
                },
                other => return Err(self.refuse(&format!("has a key that is a {}", kind(other)))),
            };
            if members.insert(name, value).is_some() {
                let shown = show_key(&key);
                return Err(self.refuse(&format!("has the key {shown} as number and as string")));
            }
        }
        self.out.push('{');
        for (index, (name, value)) in members.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.out.push_str(&Json::String(name.clone()).to_string());
            self.out.push(':');
            self.at(format!(".{name}"), value)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn at(&mut self, key: String, value: &Value) -> Result<(), Fault> {
        self.path.push(key);
        self.value(value)?;
        self.path.pop();
        Ok(())
    }

    fn refuse(&self, problem: &str) -> Fault {
        let path = if self.path.is_empty() {
            "the value".to_owned()
        } else {
            self.path.concat()
        };
        Fault(format!("json.encode: {path}: {problem}"))
    }
}

/// The length of a table that is a JSON array: its largest key, when all keys are positive
/// integers and there is at least one.
fn array_length(table: &Table) -> Result<Option<i64>, Fault> {
    let mut longest = 0;
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(index) if index > 0 => longest = longest.max(index),
            _ => return Ok(None),
        }
    }
    Ok((longest > 0).then_some(longest))
}

/// The value that `text` stands for.
pub(crate) fn decode(lua: &Lua, text: &[u8]) -> Result<Value, Fault> {
    let json: Json =
        serde_json::from_slice(text).map_err(|error| Fault(format!("json.decode: {error}")))?;
    to_lua(lua, &json)
}

fn to_lua(lua: &Lua, json: &Json) -> Result<Value, Fault> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => number_to_lua(number),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, item)?)?;
            }
            Value::Table(table)
        }
        Json::Object(members) => {
            let table = lua.create_table_with_capacity(0, members.len())?;
            for (name, member) in members {
                table.raw_set(name.as_str(), to_lua(lua, member)?)?;
            }
            Value::Table(table)
        }
    })
}

/// Integers keep their value (i64) or their bits (up to 2^64 - 1); all else is a float.
fn number_to_lua(number: &Number) -> Value {
    if let Some(int) = number.as_i64() {
        return Value::Integer(int);
    }
    if let Some(bits) = number.as_u64() {
        return Value::Integer(bits.cast_signed());
    }
    Value::Number(number.as_f64().unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(source: &str) -> Result<String, Fault> {
        let lua = Lua::new();
        let value: Value = lua.load(source).eval().unwrap();
        encode(&value)
    }

    fn decoded(text: &str, check: &str) -> bool {
        let lua = Lua::new();
        lua.globals()
            .set("v", decode(&lua, text.as_bytes()).unwrap())
            .unwrap();
        lua.load(check).eval().unwrap()
    }

    #[test]
    fn l207_arrays_objects_and_sorted_keys() {
        for (source, json) in [
            ("{}", "{}"),
            ("{1,2,3}", "[1,2,3]"),
            ("{1,nil,3}", "[1,null,3]"),
            ("{b=1,a='x'}", r#"{"a":"x","b":1}"#),
            ("{[1]='a',x=2}", r#"{"1":"a","x":2}"#),
            ("{[0]='z'}", r#"{"0":"z"}"#),
            ("1.5", "1.5"),
            ("1e300", "1e+300"),
            ("true", "true"),
            ("nil", "null"),
            ("'a\"\\n'", r#""a\"\n""#),
            ("math.mininteger", "-9223372036854775808"),
        ] {
            let got = encoded(source).unwrap();
            if source == "1e300" {
                assert_eq!(got.parse::<f64>().unwrap(), 1e300);
            } else {
                assert_eq!(got, json, "{source}");
            }
        }
    }

    #[test]
    fn l207_what_has_no_json_form_is_named_by_its_path() {
        for (source, part) in [
            ("{a={b={1,2,print}}}", ".a.b[3]: cannot encode a function"),
            ("0/0", "cannot encode NaN"),
            ("{x=1/0}", ".x: cannot encode inf"),
            ("{s='\\255'}", ".s: cannot encode a string"),
            ("{[true]=1}", "has a key that is a boolean"),
            ("{[1]='a',[1000000]='b'}", "an array of length 1000000"),
            (
                "(function() local t = {} t.me = t return t end)()",
                "contains itself",
            ),
        ] {
            let text = encoded(source).unwrap_err().0;
            assert!(text.contains(part), "{source}: {text}");
        }
    }

    #[test]
    fn l208_numbers_keep_value_or_bits() {
        assert!(decoded(
            "9223372036854775807",
            "return v == math.maxinteger"
        ));
        assert!(decoded("18446744073709551615", "return v == -1"));
        assert!(decoded("1.0", "return math.type(v) == 'float'"));
        assert!(decoded("1e2", "return v == 100.0"));
        assert!(decoded("18446744073709551616", "return v == 2.0^64"));
        assert!(decoded(
            "[1,null,3]",
            "return v[1] == 1 and v[2] == nil and v[3] == 3"
        ));
        assert!(decoded(
            r#"{"a":null,"b":[{}]}"#,
            "return v.a == nil and next(v.b[1]) == nil"
        ));
        assert!(decoded(r#""\u00e4""#, "return v == 'ä'"));
    }

    #[test]
    fn l208_errors_give_line_and_column() {
        for text in ["{\n  \"a\": }", "[1] x", "", "{'a':1}"] {
            let error = decode(&Lua::new(), text.as_bytes()).unwrap_err().0;
            assert!(
                error.contains("line") && error.contains("column"),
                "{error}"
            );
        }
        let error = decode(&Lua::new(), b"[1] x").unwrap_err().0;
        assert!(
            error.contains("trailing characters at line 1 column 5"),
            "{error}"
        );
    }
}
