//! Checks a value against a JSON schema, as far as the schema of Kubernetes' types goes. Fields that
//! the schema does not name are wrong, as for the API server's strict validation.

use serde_json::Value;

/// What is wrong with `value`, a line per place.
pub(crate) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let check = Check { root: schema };
    check.value(schema, value, "", &mut found);
    found
}

struct Check<'a> {
    root: &'a Value,
}

impl Check<'_> {
    fn value(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            let target = self.root.pointer(name.trim_start_matches('#'));
            let target = target.unwrap_or_else(|| panic!("the schema lacks {name}"));
            return self.value(target, value, at, found);
        }
        if !schema["type"].is_null() && !is_of(&schema["type"], value) {
            found.push(format!("{at}: {value} is not of type {}", schema["type"]));
            return;
        }
        if let Some(items) = value.as_array() {
            for (index, item) in items.iter().enumerate() {
                self.value(&schema["items"], item, &format!("{at}[{index}]"), found);
            }
        }
        if value.is_object() && schema["type"] == "object" {
            self.object(schema, value, at, found);
        }
    }

    fn object(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        for (name, field) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let rest = &schema["additionalProperties"];
            match schema["properties"].get(name) {
                Some(of) => self.value(of, field, &at, found),
                None if rest.is_object() => self.value(rest, field, &at, found),
                None => found.push(format!("{at}: there is no such field")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if value.get(name).is_none() {
                found.push(format!("{at}.{name}: is missing"));
            }
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("the schema has a type {other}"),
        },
        other => panic!("the schema has a type {other}"),
    }
}
