//! What a scenario measured.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// Numbers and their names, in order.
#[derive(Default)]
pub(super) struct Figures(Vec<(&'static str, String)>);

impl Figures {
    /// One more.
    pub(super) fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.push((name, value.to_string()));
        self
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(name, value)| format!("{name} {value}")).collect();
        f.write_str(&all.join(", "))
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// With a comma between thousands.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (at, digit) in digits[first..].chars().enumerate() {
        if at % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.0} MiB")
}

/// The same where little counts.
pub(super) fn tenths_of_mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// A number, and which part of a whole that is.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{} ({:.1} %)", thousands(part), 100.0 * part as f64 / whole as f64)
}
