//! Reads the arguments of a call and says precisely what is wrong with them.
//!
//! Every complaint names the call, the position and name of the argument, the type that came
//! and the types that are accepted (lua-api L-231); unknown option keys are quoted together
//! with the known ones.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use mlua::{MultiValue, Table, Value};
use provium_lab::{Guest, Lab, Vm, units};

use crate::fault::Fault;
use crate::handle::{Handle, Object};

/// The arguments of one call, taken one after another.
pub(crate) struct Args {
    call: &'static str,
    values: std::collections::VecDeque<Value>,
    position: usize,
}

impl Args {
    /// The arguments `values` of `call` (`vm:run`); a method's handle is not among them.
    pub(crate) fn new(call: &'static str, values: MultiValue) -> Self {
        Self {
            call,
            values: values.into_iter().collect(),
            position: 0,
        }
    }

    /// The call as an author writes it.
    pub(crate) fn call(&self) -> &'static str {
        self.call
    }

    /// The next argument, nil when there is none.
    pub(crate) fn next(&mut self) -> Value {
        self.position += 1;
        self.values.pop_front().unwrap_or(Value::Nil)
    }

    /// How many arguments are left.
    pub(crate) fn left(&self) -> usize {
        self.values.len()
    }

    /// The next argument without taking it.
    pub(crate) fn peek(&self) -> &Value {
        self.values.front().unwrap_or(&Value::Nil)
    }

    /// All remaining arguments.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        self.position += self.values.len();
        self.values.drain(..).collect()
    }

    /// The complaint about the argument just taken.
    pub(crate) fn wrong(&self, name: &str, wanted: &str, got: &Value) -> Fault {
        Fault(format!(
            "{}: argument {} ({name}) must be {wanted}, got {}",
            self.call,
            self.position,
            kind(got)
        ))
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Fault> {
        match self.next() {
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            other => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// A string that must be text.
    pub(crate) fn text(&mut self, name: &str) -> Result<String, Fault> {
        let call = self.call;
        let position = self.position + 1;
        String::from_utf8(self.bytes(name)?).map_err(|_| {
            Fault(format!(
                "{call}: argument {position} ({name}) must be valid UTF-8"
            ))
        })
    }

    /// Text or nothing.
    pub(crate) fn text_or_nil(&mut self, name: &str) -> Result<Option<String>, Fault> {
        if self.peek().is_nil() {
            self.next();
            return Ok(None);
        }
        self.text(name).map(Some)
    }

    /// A host path.
    pub(crate) fn path(&mut self, name: &str) -> Result<PathBuf, Fault> {
        self.bytes(name)
            .map(|bytes| OsString::from_vec(bytes).into())
    }

    /// An integer; floats with an integral value count (L-107).
    pub(crate) fn int(&mut self, name: &str) -> Result<i64, Fault> {
        let value = self.next();
        integral(&value).ok_or_else(|| self.wrong(name, "an integer", &value))
    }

    /// A duration (L-003).
    pub(crate) fn duration(&mut self, name: &str) -> Result<Duration, Fault> {
        let value = self.next();
        duration(&value, || {
            self.wrong(name, "a duration (seconds or a string)", &value)
        })
        .map_err(|fault| self.named(name, fault))
    }

    /// A duration or nothing.
    pub(crate) fn duration_or_nil(&mut self, name: &str) -> Result<Option<Duration>, Fault> {
        if self.peek().is_nil() {
            self.next();
            return Ok(None);
        }
        self.duration(name).map(Some)
    }

    /// A table.
    pub(crate) fn table(&mut self, name: &str) -> Result<Table, Fault> {
        match self.next() {
            Value::Table(table) => Ok(table),
            other => Err(self.wrong(name, "a table", &other)),
        }
    }

    /// An options table with these known keys, or nothing, which is the same as an empty one.
    pub(crate) fn options(
        &mut self,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Result<Options, Fault> {
        match self.next() {
            Value::Nil => Ok(Options {
                call: self.call,
                name,
                table: None,
            }),
            Value::Table(table) => Options::new(self.call, name, table, known),
            other => Err(self.wrong(name, "a table", &other)),
        }
    }

    /// Refuses more arguments than `most`; nils at the end are none. A method's handle comes on top.
    pub(crate) fn at_most(&self, most: Option<usize>, method: bool) -> Result<(), Fault> {
        let Some(most) = most else {
            return Ok(());
        };
        let given = self.values.iter().rposition(|value| !value.is_nil());
        let given = given.map_or(0, |last| last + 1) - usize::from(method && given.is_some());
        if given <= most {
            return Ok(());
        }
        Err(Fault(format!(
            "{}: takes {most} argument{}, got {given}",
            self.call,
            if most == 1 { "" } else { "s" },
        )))
    }

    /// Refuses what has not been read.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.values.iter().any(|value| !value.is_nil()) {
            false => Ok(()),
            true => Err(Fault(format!(
                "{}: takes {} argument{}, got {}",
                self.call,
                self.position,
                if self.position == 1 { "" } else { "s" },
                self.position + self.values.len()
            ))),
        }
    }

    fn named(&self, name: &str, fault: Fault) -> Fault {
        if fault.0.starts_with(self.call) {
            fault
        } else {
            Fault(format!("{}: {name}: {}", self.call, fault.0))
        }
    }
}

/// An options table whose keys have been checked.
pub(crate) struct Options {
    call: &'static str,
    name: &'static str,
    table: Option<Table>,
}

impl Options {
    /// Checks the keys of `table`.
    pub(crate) fn new(
        call: &'static str,
        name: &'static str,
        table: Table,
        known: &[&str],
    ) -> Result<Self, Fault> {
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let shown = show_key(&key);
            if !matches!(&key, Value::String(_)) || !known.contains(&shown.as_str()) {
                return Err(Fault(format!(
                    "{call}: {name}: unknown key `{shown}` (known: {})",
                    known.join(", ")
                )));
            }
        }
        Ok(Self {
            call,
            name,
            table: Some(table),
        })
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &str) -> Result<Value, Fault> {
        match &self.table {
            Some(table) => Ok(table.raw_get(key)?),
            None => Ok(Value::Nil),
        }
    }

    /// The complaint about the value under `key`.
    pub(crate) fn wrong(&self, key: &str, wanted: &str, got: &Value) -> Fault {
        Fault(format!(
            "{}: {}.{key} must be {wanted}, got {}",
            self.call,
            self.name,
            kind(got)
        ))
    }

    /// A problem with the value under `key`.
    pub(crate) fn problem(&self, key: &str, problem: impl std::fmt::Display) -> Fault {
        Fault(format!("{}: {}.{key}: {problem}", self.call, self.name))
    }

    /// A byte string.
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        match self.get(key)? {
            Value::Nil => Ok(None),
            Value::String(text) => Ok(Some(text.as_bytes().to_vec())),
            other => Err(self.wrong(key, "a string", &other)),
        }
    }

    /// Text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, Fault> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| self.problem(key, "must be valid UTF-8"))
    }

    /// A boolean, false when absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Fault> {
        match self.get(key)? {
            Value::Nil => Ok(false),
            Value::Boolean(flag) => Ok(flag),
            other => Err(self.wrong(key, "a boolean", &other)),
        }
    }

    /// An integer.
    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>, Fault> {
        match self.get(key)? {
            Value::Nil => Ok(None),
            value => match integral(&value) {
                Some(int) => Ok(Some(int)),
                None => Err(self.wrong(key, "an integer", &value)),
            },
        }
    }

    /// File permission bits.
    pub(crate) fn perm(&self, key: &str) -> Result<Option<u32>, Fault> {
        match self.int(key)? {
            None => Ok(None),
            Some(bits) => match u32::try_from(bits) {
                Ok(bits) if bits <= 0o7777 => Ok(Some(bits)),
                _ => Err(self.problem(key, format_args!("{bits} is not a file mode (0 to 4095)"))),
            },
        }
    }

    /// A duration (L-003).
    pub(crate) fn duration(&self, key: &str) -> Result<Option<Duration>, Fault> {
        match self.get(key)? {
            Value::Nil => Ok(None),
            value => duration(&value, || {
                self.wrong(key, "a duration (seconds or a string)", &value)
            })
            .map(Some)
            .map_err(|fault| match fault.0.starts_with(self.call) {
                true => fault,
                false => self.problem(key, fault.0),
            }),
        }
    }

    /// A size (L-004).
    pub(crate) fn size(&self, key: &str) -> Result<Option<u64>, Fault> {
        let value = self.get(key)?;
        match &value {
            Value::Nil => Ok(None),
            Value::String(text) => units::parse_size(&text.to_string_lossy())
                .map(Some)
                .map_err(|error| self.problem(key, error)),
            value => match integral(value) {
                Some(bytes) => units::size_from_int(bytes)
                    .map(Some)
                    .map_err(|error| self.problem(key, error)),
                None => Err(self.wrong(key, "a size (bytes or a string)", value)),
            },
        }
    }

    /// A table.
    pub(crate) fn table(&self, key: &str) -> Result<Option<Table>, Fault> {
        match self.get(key)? {
            Value::Nil => Ok(None),
            Value::Table(table) => Ok(Some(table)),
            other => Err(self.wrong(key, "a table", &other)),
        }
    }

    /// An array of byte strings.
    pub(crate) fn byte_list(&self, key: &str) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        let Some(table) = self.table(key)? else {
            return Ok(None);
        };
        let mut list = Vec::with_capacity(table.raw_len());
        for item in table.sequence_values::<Value>() {
            match item? {
                Value::String(text) => list.push(text.as_bytes().to_vec()),
                other => {
                    let place = format!("{key}[{}]", list.len() + 1);
                    return Err(self.wrong(&place, "a string", &other));
                }
            }
        }
        Ok(Some(list))
    }
}

/// An integer value, also when it comes as an integral float.
pub(crate) fn integral(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(int) => Some(*int),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the value is checked to be integral"
        )]
        Value::Number(float)
            if float.fract() == 0.0 && (-(2f64.powi(63))..2f64.powi(63)).contains(float) =>
        {
            Some(*float as i64)
        }
        _ => None,
    }
}

/// A duration value: seconds or a string with a unit.
pub(crate) fn duration(value: &Value, wrong: impl FnOnce() -> Fault) -> Result<Duration, Fault> {
    let parsed = match value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds beyond 2^53 are refused anyway"
        )]
        Value::Integer(seconds) => units::duration_from_secs(*seconds as f64),
        Value::Number(seconds) => units::duration_from_secs(*seconds),
        Value::String(text) => units::parse_duration(&text.to_string_lossy()),
        _ => return Err(wrong()),
    };
    parsed.map_err(|error| Fault(error.to_string()))
}

/// The type of a value for messages: `integer`, `float`, `VM`, `table`, ...
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Integer(_) => "integer".to_owned(),
        Value::Number(_) => "float".to_owned(),
        Value::UserData(data) => match data.borrow::<Handle>() {
            Ok(handle) => handle.class().to_owned(),
            Err(_) => "userdata".to_owned(),
        },
        other => other.type_name().to_owned(),
    }
}

/// A table key for messages.
pub(crate) fn show_key(key: &Value) -> String {
    match key {
        Value::String(text) => text.to_string_lossy(),
        Value::Integer(int) => format!("[{int}]"),
        other => format!("[{}]", kind(other)),
    }
}

/// Handles among the arguments. A method's own handle does not count as a position.
impl Args {
    /// The handle the method is called on, as `pick` wants it.
    pub(crate) fn this<T>(
        &mut self,
        class: &str,
        pick: impl FnOnce(&Object) -> Option<T>,
    ) -> Result<T, Fault> {
        let value = self.values.pop_front().unwrap_or(Value::Nil);
        let picked = match &value {
            Value::UserData(data) => data
                .borrow::<Handle>()
                .ok()
                .and_then(|handle| pick(handle.object())),
            _ => None,
        };
        picked.ok_or_else(|| {
            Fault(format!(
                "{}: must be called on a {class} handle, with a colon; got {}",
                self.call,
                kind(&value)
            ))
        })
    }

    /// The VM or worker the method is called on.
    pub(crate) fn guest(&mut self) -> Result<Guest, Fault> {
        let class = if self.call.starts_with("worker") {
            "Worker"
        } else {
            "VM"
        };
        self.this(class, |object| match object {
            Object::Vm(vm) => Some(Guest::clone(vm)),
            Object::Worker(worker) => Some(Guest::clone(worker)),
            _ => None,
        })
    }

    /// The VM the method is called on.
    pub(crate) fn vm(&mut self) -> Result<Vm, Fault> {
        self.this("VM", |object| match object {
            Object::Vm(vm) => Some(vm.clone()),
            _ => None,
        })
    }

    /// The lab the method is called on.
    pub(crate) fn lab(&mut self) -> Result<Lab, Fault> {
        self.this("Lab", |object| match object {
            Object::Lab(lab) => Some(lab.clone()),
            _ => None,
        })
    }

    /// The object of the next argument, if it is a handle.
    pub(crate) fn peek_object(&self) -> Option<Object> {
        match self.peek() {
            Value::UserData(data) => Some(data.borrow::<Handle>().ok()?.object().clone()),
            _ => None,
        }
    }
}
