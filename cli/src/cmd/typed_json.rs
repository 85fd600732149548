//! A typed value as JSON, with the fields in the order in which they lie: a map of `serde_json` would sort them.
//!
//! What is no value of the program's has a `$` in front: `$more`, `$cut`, `$damaged`, `$bytes`, `$text`.

use segvm::inspect::{Cut, Flaw, Value};

use crate::output::is_obeyed;

/// What was written so far.
#[derive(Default)]
pub(super) struct Json {
    pub(super) text: String,
    /// Whether something was left out.
    pub(super) cut: bool,
    pub(super) flaws: u64,
    pub(super) first_flaw: Option<Flaw>,
}

impl Json {
    pub(super) fn envelope(&mut self, head: &[(&str, String)], value: &Value) {
        self.text.push_str("{\n");
        for (name, text) in head {
            let line = format!("  {}: {},\n", quoted(name), quoted(text));
            self.text.push_str(&line);
        }
        self.text.push_str("  \"value\": ");
        self.value(value, 1);
        self.text.push_str("\n}");
    }

    pub(super) fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Bool(truth) => self.text.push_str(if *truth { "true" } else { "false" }),
            // What readers of JSON would round is a text.
            Value::Unsigned(n) if *n > u128::from(u64::MAX) => self.string(&n.to_string()),
            Value::Unsigned(n) => self.text.push_str(&n.to_string()),
            Value::Signed(n) if i64::try_from(*n).is_err() => self.string(&n.to_string()),
            Value::Signed(n) => self.text.push_str(&n.to_string()),
            Value::F32(n) if n.is_finite() => self.text.push_str(&format!("{n:?}")),
            Value::F32(n) => self.string(&n.to_string()),
            Value::F64(n) if n.is_finite() => self.text.push_str(&format!("{n:?}")),
            Value::F64(n) => self.string(&n.to_string()),
            Value::Char(c) => self.string(c.encode_utf8(&mut [0; 4])),
            Value::Text(text, 0) => self.string(text),
            Value::Text(text, more) => {
                let text = Part::Text(text);
                self.object([("$text", text), ("$more", Part::Number(*more))], indent);
                self.cut = true;
            }
            Value::Variant(name) => self.string(name),
            Value::Nothing => self.text.push_str("null"),
            Value::List(items, more) => self.list(items, *more, indent),
            Value::Map(entries, more) => self.map(entries, *more, indent),
            Value::Record(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (&**name, Part::Value(value)));
                self.object(fields, indent);
            }
            Value::Opaque(bytes, more) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let parts = [("$bytes", Part::Text(&hex)), ("$more", Part::Number(*more))];
                self.object(parts, indent);
            }
            Value::Flaw(flaw) => {
                let parts = [
                    ("$damaged", Part::Text(flaw.what)),
                    ("$offset", Part::Number(flaw.offset)),
                ];
                self.object(parts, indent);
                self.flaws += 1;
                self.first_flaw.get_or_insert(*flaw);
            }
            Value::Cut(why) => {
                let why = match why {
                    Cut::Depth => "depth",
                    Cut::Enough => "enough",
                };
                self.object([("$cut", Part::Text(why))], indent);
                self.cut = true;
            }
            _ => self.text.push_str("null"),
        }
    }

    fn list(&mut self, items: &[Value], more: u64, indent: usize) {
        self.cut |= more > 0;
        // Numbers and the like lie side by side.
        let flat = items.iter().all(|item| {
            !matches!(
                item,
                Value::List(..) | Value::Map(..) | Value::Record(_) | Value::Text(..)
            )
        });
        if flat && more == 0 {
            self.text.push('[');
            for (n, item) in items.iter().enumerate() {
                self.text.push_str(if n > 0 { ", " } else { "" });
                self.value(item, indent);
            }
            self.text.push(']');
            return;
        }
        self.text.push('[');
        for (n, item) in items.iter().enumerate() {
            self.next_line(n, indent + 1);
            self.value(item, indent + 1);
        }
        if more > 0 {
            self.next_line(items.len(), indent + 1);
            self.object([("$more", Part::Number(more))], indent + 1);
        }
        self.line(indent);
        self.text.push(']');
    }

    /// An object where the keys can be names in one, otherwise pairs.
    fn map(&mut self, entries: &[(Value, Value)], more: u64, indent: usize) {
        self.cut |= more > 0;
        let names: Option<Vec<String>> = entries.iter().map(|(key, _)| name(key)).collect();
        if let Some(names) = names {
            let values = entries.iter().map(|(_, value)| Part::Value(value));
            let all = names.iter().map(|name| &**name).zip(values);
            let more = (more > 0).then_some(("$more", Part::Number(more)));
            return self.object(all.chain(more), indent);
        }
        self.text.push('[');
        for (n, (key, value)) in entries.iter().enumerate() {
            self.next_line(n, indent + 1);
            let parts = [("key", Part::Value(key)), ("value", Part::Value(value))];
            self.object(parts, indent + 1);
        }
        if more > 0 {
            self.next_line(entries.len(), indent + 1);
            self.object([("$more", Part::Number(more))], indent + 1);
        }
        self.line(indent);
        self.text.push(']');
    }

    fn object<'p>(&mut self, parts: impl IntoIterator<Item = (&'p str, Part<'p>)>, indent: usize) {
        self.text.push('{');
        let mut n = 0;
        for (name, part) in parts {
            self.next_line(n, indent + 1);
            n += 1;
            self.string(name);
            self.text.push_str(": ");
            match part {
                Part::Value(value) => self.value(value, indent + 1),
                Part::Text(text) => self.string(text),
                Part::Number(number) => self.text.push_str(&number.to_string()),
            }
        }
        if n > 0 {
            self.line(indent);
        }
        self.text.push('}');
    }

    fn next_line(&mut self, n: usize, indent: usize) {
        if n > 0 {
            self.text.push(',');
        }
        self.line(indent);
    }

    fn line(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(indent));
    }

    fn string(&mut self, text: &str) {
        self.text.push_str(&quoted(text));
    }
}

/// What an object has under a name.
enum Part<'p> {
    Value(&'p Value),
    Text(&'p str),
    Number(u64),
}

/// A key as a name in an object.
fn name(key: &Value) -> Option<String> {
    match key {
        Value::Text(text, 0) => Some(text.clone()),
        Value::Variant(name) => Some(name.clone()),
        Value::Char(c) => Some(c.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Unsigned(n) => Some(n.to_string()),
        Value::Signed(n) => Some(n.to_string()),
        _ => None,
    }
}

/// A text in JSON, without anything that a terminal would obey.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_obeyed(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
