//! Lua tables as event values (events-and-protocol E-029, E-030).

use mlua::{Table, Value as Lua};
use provium_protocol::{Meta, Value};

/// Deepest nesting that is passed on.
const MAX_DEPTH: usize = 16;

/// A test's meta table. What has no event form is left out, and `warn` is told.
pub(crate) fn convert(table: &Table, warn: &dyn Fn(String)) -> Meta {
    let mut converter = Converter {
        warn,
        open: Vec::new(),
    };
    converter.map(table).into_iter().collect()
}

struct Converter<'a> {
    warn: &'a dyn Fn(String),
    open: Vec<*const std::ffi::c_void>,
}

impl Converter<'_> {
    fn value(&mut self, value: &Lua) -> Option<Value> {
        Some(match value {
            Lua::Nil => Value::Nil,
            Lua::Boolean(flag) => Value::Bool(*flag),
            Lua::Integer(int) => Value::Int(*int),
            Lua::Number(float) => Value::Float(*float),
            Lua::String(text) => match text.to_str() {
                Ok(text) => Value::Str(text.to_owned()),
                Err(_) => Value::Bin(text.as_bytes().to_vec()),
            },
            Lua::Table(table) => return self.table(table),
            other => {
                (self.warn)(format!("a {} was left out", crate::args::kind(other)));
                return None;
            }
        })
    }

    fn table(&mut self, table: &Table) -> Option<Value> {
        let identity = table.to_pointer();
        if self.open.contains(&identity) || self.open.len() >= MAX_DEPTH {
            (self.warn)("a table nested in itself or too deep was left out".to_owned());
            return None;
        }
        self.open.push(identity);
        let count = table.pairs::<Lua, Lua>().count();
        let value = if count == table.raw_len() {
            let items = table.sequence_values::<Lua>().flatten();
            Value::Array(items.filter_map(|item| self.value(&item)).collect())
        } else {
            Value::Map(self.map(table).into_iter().collect())
        };
        self.open.pop();
        Some(value)
    }

    fn map(&mut self, table: &Table) -> Vec<(String, Value)> {
        let mut members = Vec::new();
        for (key, value) in table.pairs::<Lua, Lua>().flatten() {
            let name = match &key {
                Lua::String(text) => text.to_string_lossy(),
                Lua::Integer(int) => int.to_string(),
                Lua::Number(float) => float.to_string(),
                Lua::Boolean(flag) => flag.to_string(),
                other => {
                    let kind = crate::args::kind(other);
                    (self.warn)(format!("a key that is a {kind} was left out"));
                    continue;
                }
            };
            if let Some(value) = self.value(&value) {
                members.push((name, value));
            }
        }
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members
    }
}
