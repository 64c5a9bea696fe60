//! Numbers as people read them.

use crate::core::time::Nanos;

/// `1,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two or three digits: `0.25`, `9.6`, `130`, `12,345`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and rounded here"
)]
pub fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 0.01 => "< 0.01".to_owned(),
        rate if rate < 0.995 => format!("{rate:.2}"),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate => grouped(rate.round() as u64),
    }
}

/// Like [`Nanos`], but what is shorter than 10 ms keeps two digits: `24us`, `1.3ms`.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", ns / 1000),
        1_000_000..10_000_000 => format!("{}.{}ms", ns / 1_000_000, ns / 100_000 % 10),
        _ => Nanos(ns).to_string(),
    }
}

/// `1 gap`, `1,204 gaps`.
pub fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_enough() {
        let all: Vec<_> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
        let all: Vec<_> = [0.0, 0.001, 0.25, 0.999, 9.64, 99.97, 12345.6].map(rate).into();
        assert_eq!(all, ["0", "< 0.01", "0.25", "1.0", "9.6", "100", "12,346"]);
        let all: Vec<_> = [0, 24_300, 1_340_000, 15_000_000, 75_000_000_000].map(duration).into();
        assert_eq!(all, ["0ns", "24us", "1.3ms", "15ms", "1m15s"]);
    }
}
