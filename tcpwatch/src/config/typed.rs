//! Values of flags, from what was typed; each message says what to type instead.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use crate::trace::recording::Moment;

const SMALLEST_RING: u32 = 4096;
const LARGEST_RING: u32 = 1 << 30;

/// A span such as `30s`, `500ms`, `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
    let too_long = || "the longest time is 36500d, a hundred years".to_owned();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map(Duration::from_secs).ok();
        return seconds.filter(|&time| time <= LONGEST).ok_or_else(too_long);
    }
    let span: jiff::Span = text.parse().map_err(|_| {
        // A number that no span can hold, with a unit that is one.
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if unit.len() < text.len() && format!("1{unit}").parse::<jiff::Span>().is_ok() {
            too_long()
        } else {
            "use a number with a unit, such as 30s, 500ms, 2m or 1d".to_owned()
        }
    })?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err("months and years are not equally long; use days, such as 30d".to_owned());
    }
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let span = span.to_duration(day).map_err(|_| too_long())?;
    let time = Duration::try_from(span).map_err(|_| "a time cannot be negative".to_owned())?;
    Some(time).filter(|&time| time <= LONGEST).ok_or_else(too_long)
}

/// A ring size such as `8M`, `65536`, `256K`.
pub fn ring_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = magnitude(text);
    let bytes = digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (SMALLEST_RING..=LARGEST_RING).contains(bytes));
    match bytes {
        Some(bytes) if bytes.is_power_of_two() => Ok(bytes),
        Some(bytes) => Err(format!(
            "it must be a power of two; the next is {}",
            bytes.checked_next_power_of_two().unwrap_or(LARGEST_RING)
        )),
        None => Err("use a power of two from 4K to 1G, such as 8M".to_owned()),
    }
}

/// A size such as `64M`, `1G` or `65536`.
pub fn size(text: &str) -> Result<u64, String> {
    const SMALLEST: u64 = 64 << 10;
    let (digits, shift) = magnitude(text);
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= SMALLEST => Ok(bytes),
        None if is_number(digits) => Err("no file can be that large".to_owned()),
        _ => Err("use a size from 64K on, such as 64M or 1G".to_owned()),
    }
}

/// Digits, and the power of two that the letter behind them stands for.
fn magnitude(text: &str) -> (&str, u32) {
    match text.trim_end_matches(['b', 'B']).char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    }
}

/// How many times as fast as it happened.
pub fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.trim_end_matches('x').parse().unwrap_or(0.0);
    if speed.is_finite() && speed > 0.0 {
        Ok(speed)
    } else {
        Err("use a number above 0, such as 1, 0.5 or 60".to_owned())
    }
}

/// A moment of a recording: a date and time, a time of day, or a span after its beginning (`+5m`) or
/// before its end (`-5m`).
pub fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || {
        "use a time such as 2026-11-22T17:30:00Z, 2026-11-22T17:30 or 17:30, or +5m, -5m".to_owned()
    };
    if let Some(span) = text.strip_prefix('+') {
        return duration(span).map(|span| Moment::AfterStart(span.into())).map_err(|_| wrong());
    }
    if let Some(span) = text.strip_prefix('-') {
        return duration(span).map(|span| Moment::BeforeEnd(span.into())).map_err(|_| wrong());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(at.as_nanosecond()).map(Moment::At).map_err(|_| wrong());
    }
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let zoned = civil.to_zoned(jiff::tz::TimeZone::system()).map_err(|_| wrong())?;
        return u64::try_from(zoned.timestamp().as_nanosecond())
            .map(Moment::At)
            .map_err(|_| wrong());
    }
    text.parse::<jiff::civil::Time>().map(Moment::TimeOfDay).map_err(|_| wrong())
}

/// A process id.
pub fn pid(text: &str) -> Result<u32, String> {
    // The kernel's own limit (`include/linux/threads.h`: `PID_MAX_LIMIT`).
    whole(text, 1..=4_194_304, "a process id, as pidof NAME prints it")
}

/// A port.
pub fn port(text: &str) -> Result<u16, String> {
    match text.split_once(['-', ':']) {
        Some((from, to)) if is_number(from) && is_number(to) => {
            Err(format!("a range of ports cannot be given; list them, such as {from},{to}"))
        }
        _ => whole(text, 1..=65535, "a port"),
    }
}

/// A user id.
pub fn uid(text: &str) -> Result<u32, String> {
    whole(text, 0..=4_294_967_294, "a numeric user id, as id -u NAME prints it")
}

/// A whole number of a kind, in a range.
pub fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
    what: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| whole(text, range.clone(), what)
}

fn whole<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>, what: &str) -> Result<T, String> {
    let (least, most) = range.clone().into_inner();
    let number = text.parse::<u64>().ok();
    if number.is_none() && !is_number(text.strip_prefix('-').unwrap_or(text)) {
        return Err(format!("this is not {what}, which is a whole number"));
    }
    let number = number.filter(|number| range.contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match most {
        u64::MAX => format!("{text} is not at least {least}"),
        _ => format!("{text} is not in {least}..={most}"),
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address with a port.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "use an IP address and a port, such as 127.0.0.1:9469, 0.0.0.0:9469 or [::]:9469; names are not looked up".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let cases = [
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("5", 5000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1w2d3h", 788_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "soon", "-3s", "3 parsecs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert_eq!(ring_size("8M"), Ok(8 << 20));
        assert_eq!(ring_size("4096"), Ok(4096));
        assert_eq!(ring_size("256k"), Ok(256 << 10));
        assert!(ring_size("5000").unwrap_err().contains("8192"));
        for bad in ["0", "2048", "", "M", "99999999999", "8G", "3X"] {
            assert!(ring_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_that_is_refused_is_refused_for_what_is_wrong_with_it() {
        let refused = [
            ("99999999999999", "the longest time"),
            ("99999999999999999999999s", "the longest time"),
            ("36501d", "the longest time"),
            ("876001h", "the longest time"),
            ("1mo", "months"),
            ("2y", "years"),
            ("-3s", "negative"),
            ("3 parsecs", "with a unit"),
        ];
        for (text, words) in refused {
            let said = duration(text).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
        assert!(duration("36500d").is_ok());
    }

    #[test]
    fn numbers_that_are_none_are_told_from_those_out_of_range() {
        assert_eq!(pid("4242"), Ok(4242));
        assert!(pid("nginx").unwrap_err().contains("not a process id"));
        assert_eq!(pid("0").unwrap_err(), "0 is not in 1..=4194304");
        assert_eq!(pid("-7").unwrap_err(), "-7 is not in 1..=4194304");
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(
            port("99999999999999999999").unwrap_err(),
            "99999999999999999999 is not in 1..=65535"
        );
        assert!(port("8000-8080").unwrap_err().contains("8000,8080"));
        assert!(port("http").unwrap_err().contains("not a port"));
        assert!(uid("root").unwrap_err().contains("id -u NAME"));
        let rows = number::<usize>(1..=u64::MAX, "a number of rows");
        assert_eq!(rows("0").unwrap_err(), "0 is not at least 1");
        assert!(rows("").unwrap_err().contains("not a number of rows"));
    }

    #[test]
    fn a_size_that_no_file_has_is_refused_for_that() {
        assert_eq!(size("1G"), Ok(1 << 30));
        assert!(size("99999999999G").unwrap_err().contains("no file"));
        assert!(size("5").unwrap_err().contains("64K"));
    }
}
