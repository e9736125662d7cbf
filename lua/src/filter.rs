//! Which tests of a file run (cli-and-config R-017..R-019, R-041; lua-api L-222..L-227).
//!
//! The decision is a pure function of the file's `todo`, the test's meta and the flags; the
//! first rule that hits decides, and its reason names the flag and the value.

use std::collections::BTreeMap;

use provium_protocol::{Meta, Value};

/// A `KEY=VALUE` pair of `--tag-meta` and `--no-tag-meta`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MetaMatch {
    /// The meta key.
    pub key: String,
    /// The wanted value.
    pub value: String,
}

/// The flags that select tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Filter {
    /// Run tests marked slow.
    pub include_slow: bool,
    /// Run only tests with one of these tags.
    pub tags: Vec<String>,
    /// Run no test with one of these tags.
    pub no_tags: Vec<String>,
    /// Run only tests whose meta matches.
    pub tag_meta: Vec<MetaMatch>,
    /// Run no test whose meta matches.
    pub no_tag_meta: Vec<MetaMatch>,
}

impl Filter {
    /// The reason to skip a test, in the order of R-041.
    #[must_use]
    pub fn skip(&self, todo: Option<&str>, meta: &Meta) -> Option<String> {
        todo.map(str::to_owned)
            .or_else(|| declared_skip(meta))
            .or_else(|| self.slow(meta))
            .or_else(|| self.tag_rules(meta))
            .or_else(|| self.meta_rules(meta))
    }

    fn slow(&self, meta: &Meta) -> Option<String> {
        let slow = meta.get("slow").is_some_and(truthy);
        (slow && !self.include_slow)
            .then(|| "filtered: slow tests skipped (pass --include-slow)".to_owned())
    }

    fn tag_rules(&self, meta: &Meta) -> Option<String> {
        let tags = meta.get("tags").map(strings).unwrap_or_default();
        if let Some(tag) = self.no_tags.iter().find(|tag| tags.contains(&tag.as_str())) {
            return Some(format!("filtered: --no-tag {tag}"));
        }
        if self.tags.is_empty() || self.tags.iter().any(|tag| tags.contains(&tag.as_str())) {
            return None;
        }
        Some(format!("filtered: --tag {}", self.tags.join(" --tag ")))
    }

    fn meta_rules(&self, meta: &Meta) -> Option<String> {
        if let Some(rule) = self.no_tag_meta.iter().find(|rule| rule.matches(meta)) {
            return Some(format!(
                "filtered: --no-tag-meta {}={}",
                rule.key, rule.value
            ));
        }
        let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
        for rule in &self.tag_meta {
            *keys.entry(&rule.key).or_default() |= rule.matches(meta);
        }
        let missed = keys.iter().find(|(_, hit)| !**hit)?.0;
        let wanted = self.tag_meta.iter().filter(|rule| rule.key == **missed);
        let shown: Vec<String> = wanted
            .map(|rule| format!("--tag-meta {}={}", rule.key, rule.value))
            .collect();
        Some(format!("filtered: {}", shown.join(" ")))
    }
}

impl MetaMatch {
    /// Parses `KEY=VALUE`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        Some(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    fn matches(&self, meta: &Meta) -> bool {
        meta.get(&self.key)
            .is_some_and(|value| strings(value).contains(&self.value.as_str()))
    }
}

/// `meta.skip` (L-222).
fn declared_skip(meta: &Meta) -> Option<String> {
    match meta.get("skip")? {
        Value::Str(text) => Some(format!("skipped: {text}")),
        value => truthy(value).then(|| "skipped (meta.skip)".to_owned()),
    }
}

/// True or a non-zero integer.
fn truthy(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || matches!(value, Value::Int(int) if *int != 0)
}

/// The strings of a string or an array; nothing else matches.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Str(text) => vec![text],
        Value::Array(items) => items
            .iter()
            .filter_map(|item| match item {
                Value::Str(text) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Str(value.to_owned())
    }

    fn meta(pairs: &[(&str, Value)]) -> Meta {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    }

    #[test]
    fn l222_skip_takes_booleans_integers_and_text() {
        let filter = Filter::default();
        let skip = |value| filter.skip(None, &meta(&[("skip", value)]));
        assert_eq!(
            skip(Value::Bool(true)).as_deref(),
            Some("skipped (meta.skip)")
        );
        assert_eq!(skip(Value::Int(2)).as_deref(), Some("skipped (meta.skip)"));
        assert_eq!(skip(text("broken")).as_deref(), Some("skipped: broken"));
        assert_eq!(skip(Value::Bool(false)), None);
        assert_eq!(skip(Value::Int(0)), None);
    }

    #[test]
    fn l223_slow_tests_need_the_flag() {
        let slow = meta(&[("slow", Value::Bool(true))]);
        assert_eq!(
            Filter::default().skip(None, &slow).as_deref(),
            Some("filtered: slow tests skipped (pass --include-slow)")
        );
        let all = Filter {
            include_slow: true,
            ..Filter::default()
        };
        assert_eq!(all.skip(None, &slow), None);
    }

    #[test]
    fn r018_no_tag_beats_tag() {
        let filter = Filter {
            tags: vec!["net".into(), "fs".into()],
            no_tags: vec!["flaky".into()],
            ..Filter::default()
        };
        let tagged = |names: &[&str]| {
            meta(&[(
                "tags",
                Value::Array(names.iter().map(|name| text(name)).collect()),
            )])
        };
        assert_eq!(filter.skip(None, &tagged(&["fs"])), None);
        assert_eq!(filter.skip(None, &meta(&[("tags", text("net"))])), None);
        let reason = filter.skip(None, &tagged(&["fs", "flaky"])).unwrap();
        assert_eq!(reason, "filtered: --no-tag flaky");
        let reason = filter.skip(None, &meta(&[])).unwrap();
        assert_eq!(reason, "filtered: --tag net --tag fs");
    }

    #[test]
    fn r019_meta_rules_are_or_within_a_key_and_and_across_keys() {
        let rule = |text| MetaMatch::parse(text).unwrap();
        let filter = Filter {
            tag_meta: vec![rule("area=fs"), rule("area=net"), rule("owner=me")],
            ..Filter::default()
        };
        let hit = meta(&[
            ("area", text("net")),
            ("owner", Value::Array(vec![text("me")])),
        ]);
        assert_eq!(filter.skip(None, &hit), None);
        let missed = meta(&[("area", text("net")), ("owner", Value::Int(1))]);
        assert_eq!(
            filter.skip(None, &missed).unwrap(),
            "filtered: --tag-meta owner=me"
        );
        assert_eq!(MetaMatch::parse("nothing"), None);
    }

    #[test]
    fn r041_todo_comes_first() {
        let meta = meta(&[("skip", Value::Bool(true)), ("slow", Value::Bool(true))]);
        assert_eq!(
            Filter::default().skip(Some("later"), &meta).unwrap(),
            "later"
        );
        assert_eq!(
            Filter::default().skip(None, &meta).unwrap(),
            "skipped (meta.skip)"
        );
    }
}
