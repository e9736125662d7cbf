//! One table of `provium.toml`, read key by key: types are checked, lines are known, and keys that nobody asked
//! for are reported with the nearest known one (cli-and-config R-070).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{ConfigError, Place};
use crate::units::{duration_from_secs, parse_duration, parse_size};

/// A configuration file's text with its path: what errors point into.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// An `invalid config` error at byte `at`.
    pub(super) fn invalid(&self, at: usize, message: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.to_owned(),
            place: Place::of(self.text, at),
            message: message.into(),
        }
    }

    /// A `parse` error as the TOML parser reported it.
    pub(super) fn malformed(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Parse {
            path: self.path.to_owned(),
            place: Place::of(self.text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        }
    }
}

/// A table being read; see the module documentation.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// As messages name it, `[profiles.minimal]`.
    name: String,
    /// Where its first key stands, for errors about the table as a whole.
    at: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        name: impl Into<String>,
        at: usize,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self {
            source,
            name: name.into(),
            at,
            table,
            asked: RefCell::default(),
        }
    }

    /// An error about the table as a whole.
    pub(super) fn invalid(&self, message: impl AsRef<str>) -> ConfigError {
        self.source
            .invalid(self.at, format!("{}: {}", self.name, message.as_ref()))
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, accepted: &str) -> ConfigError {
        let got = value.get_ref().type_str();
        let message = format!("{}: {key} must be {accepted}, not {got}", self.name);
        self.source.invalid(value.span().start, message)
    }

    fn refused(&self, key: &str, value: &Spanned<DeValue<'_>>, why: impl ToString) -> ConfigError {
        let message = format!("{}: {key}: {}", self.name, why.to_string());
        self.source.invalid(value.span().start, message)
    }

    pub(super) fn string(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong_type(key, value, "a string")),
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let flag = value.get_ref().as_bool();
        flag.map(Some)
            .ok_or_else(|| self.wrong_type(key, value, "true or false"))
    }

    pub(super) fn count(&self, key: &'static str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let number = integer(value.get_ref());
        let number = number.ok_or_else(|| self.wrong_type(key, value, "an integer"))?;
        match u32::try_from(number) {
            Ok(count) if count >= 1 => Ok(Some(count)),
            _ => Err(self.refused(key, value, format!("must be at least 1, not {number}"))),
        }
    }

    /// A size: integer bytes or text (L-004).
    pub(super) fn size(&self, key: &'static str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let size = match (value.get_ref().as_str(), integer(value.get_ref())) {
            (Some(text), _) => parse_size(text),
            (None, Some(number)) => crate::units::size_from_int(number),
            (None, None) => return Err(self.wrong_type(key, value, "a size")),
        };
        size.map(Some)
            .map_err(|error| self.refused(key, value, error))
    }

    /// A duration: seconds or text (L-003).
    pub(super) fn duration(&self, key: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let duration = match (value.get_ref().as_str(), number(value.get_ref())) {
            (Some(text), _) => parse_duration(text),
            (None, Some(seconds)) => duration_from_secs(seconds),
            (None, None) => return Err(self.wrong_type(key, value, "a duration")),
        };
        duration
            .map(Some)
            .map_err(|error| self.refused(key, value, error))
    }

    pub(super) fn strings(&self, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let wrong = || self.wrong_type(key, value, "an array of strings");
        let array = value.get_ref().as_array().ok_or_else(wrong)?;
        let strings = array
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned));
        strings
            .collect::<Option<Vec<_>>>()
            .map(Some)
            .ok_or_else(wrong)
    }

    /// An array of tables, each as a section of its own.
    pub(super) fn tables(&self, key: &'static str) -> Result<Vec<Section<'a>>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(Vec::new());
        };
        let wrong = || self.wrong_type(key, value, "an array of tables");
        let array = value.get_ref().as_array().ok_or_else(wrong)?;
        let section = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let table = item.get_ref().as_table()?;
            let name = format!("{} {key}[{}]", self.name, index + 1);
            Some(Section::new(self.source, name, item.span().start, table))
        };
        array
            .iter()
            .enumerate()
            .map(section)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str) -> Result<Option<Section<'a>>, ConfigError> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| self.wrong_type(key, value, "a table"))?;
        Ok(Some(Section::new(
            self.source,
            format!("[{key}]"),
            value.span().start,
            table,
        )))
    }

    /// All entries not asked for by name, as named sections: the profiles of `[profiles]`.
    pub(super) fn remaining_tables(&self) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
        let asked = self.asked.borrow();
        let prefix = self.name.trim_matches(['[', ']']);
        let mut sections = Vec::new();
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            if asked.contains(name) {
                continue;
            }
            let table = value.get_ref().as_table();
            let table = table.ok_or_else(|| self.wrong_type(name, value, "a table"))?;
            let title = format!("[{prefix}.{name}]");
            let section = Section::new(self.source, title, key.span().start, table);
            sections.push((name.to_owned(), section));
        }
        Ok(sections)
    }

    /// A warning for each key that was never asked for.
    pub(super) fn warn_unknown(&self, warnings: &mut Vec<String>) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if asked.contains(name) {
                continue;
            }
            let place = Place::of(self.source.text, key.span().start);
            let hint = nearest(name, asked.iter().copied())
                .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
            let path = self.source.path.display();
            warnings.push(format!(
                "{path}:{}:{}: {}: unknown key {name:?}{hint}{}",
                place.line,
                place.column,
                self.name,
                place.excerpt()
            ));
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let literal = value.as_integer()?;
    i64::from_str_radix(literal.as_str(), literal.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    // Durations above 2^53 seconds do not exist, so the loss of precision cannot be met.
    integer(value)
        .map(|n| n as f64)
        .or_else(|| value.as_float()?.as_str().parse().ok())
}

/// A path of the configuration: `~/` is HOME, relative ones start at `base`.
pub(super) fn resolve(base: &Path, home: Option<&Path>, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => base.join(text),
    }
}
