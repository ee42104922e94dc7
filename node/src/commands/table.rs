//! Tables for people: aligned columns with units, shortened ids, and times as ages. Programs get the JSON, in which nothing is shortened.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tops_protocol::U256;

use crate::settings::one_line;

/// Digits of an id that a table shows.
const ID_SHOWN: usize = 12;
/// The last characters of a peer id that a table shows: the first ones are the same for all.
const PEER_SHOWN: usize = 10;
/// The widest free text in a table.
const TEXT_SHOWN: usize = 72;

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// A hash or key: its first digits.
    Id,
    /// A peer id: its last characters.
    Peer,
    /// A number, to the right.
    Number,
    /// A large number of operations, with a prefix.
    Ops,
    /// Unix milliseconds, as an age.
    Age,
    /// Seconds, as a time span.
    Span,
    /// Milliseconds.
    Ms,
    /// A number with one decimal.
    Decimal,
    /// Yes or no.
    YesNo,
    /// `out` for true, `in` for false.
    Direction,
}

impl Form {
    fn right(self) -> bool {
        matches!(self, Self::Number | Self::Ops | Self::Age | Self::Span | Self::Ms | Self::Decimal)
    }

    fn show(self, value: &Value, full: bool, now_ms: u64) -> String {
        let text = match value {
            Value::Null => return "-".into(),
            Value::String(text) => one_line(text),
            other => other.to_string(),
        };
        let cut = |text: String, most: usize| {
            if text.chars().count() > most { text.chars().take(most - 1).chain(['…']).collect() } else { text }
        };
        match self {
            Self::Text => cut(text, if full { usize::MAX } else { TEXT_SHOWN }),
            Self::Id if !full && text.chars().count() > ID_SHOWN => text.chars().take(ID_SHOWN).chain(['…']).collect(),
            Self::Peer if !full && text.chars().count() > PEER_SHOWN => {
                let skip = text.chars().count() - PEER_SHOWN;
                format!("…{}", text.chars().skip(skip).collect::<String>())
            }
            Self::Id | Self::Peer | Self::Number => text,
            Self::Ops => text.parse().map_or(text, ops),
            Self::Age => value.as_u64().map_or(text, |at| ago(at, now_ms)),
            Self::Span => value.as_f64().map_or(text, |secs| span(secs.max(0.0) as u64)),
            Self::Ms => value.as_f64().map_or(text, |ms| if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }),
            Self::Decimal => value.as_f64().map_or(text, |number| format!("{number:.1}")),
            Self::YesNo => value.as_bool().map_or(text, |yes| if yes { "yes" } else { "no" }.into()),
            Self::Direction => value.as_bool().map_or(text, |out| if out { "out" } else { "in" }.into()),
        }
    }
}

/// A column: its title, the field of a row, and how that is shown.
pub type Column = (&'static str, &'static str, Form);

/// The wall clock in Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Columns as wide as their widest value; numbers to the right. `full`: nothing is shortened.
pub fn table(columns: &[Column], rows: &[Value], full: bool, now_ms: u64) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|(title, ..)| title.to_uppercase()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, field, form)| form.show(&row[*field], full, now_ms)).collect()));
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for ((cell, width), (_, _, form)) in line.iter().zip(&widths).zip(columns) {
            // Writing to a string cannot fail.
            let _ = if form.right() { write!(row, "{cell:>width$}  ") } else { write!(row, "{cell:<width$}  ") };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// `3 min ago`; a time that is still to come is named too, because a clock is wrong then.
pub fn ago(at_ms: u64, now_ms: u64) -> String {
    match now_ms.checked_sub(at_ms) {
        Some(past) => format!("{} ago", span(past / 1_000)),
        None => format!("in {}", span((at_ms - now_ms) / 1_000)),
    }
}

/// `42 s`, `3 min`, `5 h`, `9 d`.
pub fn span(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// Three digits and a prefix: `1.23 Pop`.
fn ops(count: U256) -> String {
    const PREFIXES: [&str; 11] = ["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"];
    let digits = count.to_string();
    let group = (digits.len() - 1) / 3;
    let Some(prefix) = PREFIXES.get(group) else {
        return format!("{}.{}e{} op", &digits[..1], &digits[1..3], digits.len() - 1);
    };
    let whole = digits.len() - 3 * group;
    let rest: String = digits.chars().skip(whole).take(3 - whole).collect();
    let point = if rest.is_empty() { "" } else { "." };
    format!("{}{point}{rest} {prefix}op", &digits[..whole])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_aligned_and_on_one_line_a_row() {
        let columns = [("a", "a", Form::Text), ("count", "b", Form::Number), ("c", "c", Form::YesNo)];
        let rows = [json!({ "a": "x\ny", "b": 7, "c": true }), json!({ "a": "longer", "b": null, "c": false })];
        assert_eq!(table(&columns, &rows, false, 0), "A       COUNT  C\nx y         7  yes\nlonger      -  no\n");
    }

    #[test]
    fn ids_are_shortened_unless_asked_for_in_full() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Form::Id.show(&json!(id), false, 0), "0123456789ab…");
        assert_eq!(Form::Id.show(&json!(id), true, 0), id);
        assert_eq!(Form::Peer.show(&json!("16Uiu2HAmABCDEFGHIJ"), false, 0), "…ABCDEFGHIJ");
        assert_eq!(Form::Text.show(&json!("ü".repeat(80)), false, 0).chars().count(), TEXT_SHOWN);
    }

    #[test]
    fn numbers_have_units() {
        for (count, text) in [("0", "0 op"), ("999", "999 op"), ("1000", "1.00 kop"), ("12345678", "12.3 Mop"), ("123456789012", "123 Gop")] {
            assert_eq!(Form::Ops.show(&json!(count), false, 0), text);
        }
        assert!(Form::Ops.show(&json!(U256::MAX.to_string()), false, 0).starts_with("1.15e77"));
        assert_eq!(Form::Age.show(&json!(1_000), false, 61_000), "60 s ago");
        assert_eq!(Form::Age.show(&json!(61_000), false, 1_000), "in 60 s");
        assert_eq!((span(119), span(120), span(7_200), span(200_000)), ("119 s".into(), "2 min".into(), "2 h".into(), "2 d".into()));
        assert_eq!((Form::Ms.show(&json!(0.26), false, 0), Form::Ms.show(&json!(31.4), false, 0)), ("0.3 ms".into(), "31 ms".into()));
    }
}
