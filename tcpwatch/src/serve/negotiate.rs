//! Which format a client wants, by its `Accept` header (RFC 9110, 12.5.1).

/// Formats of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metrics {
    /// `OpenMetrics` 1.0.
    Open,
    /// The text format 0.0.4, for whoever does not ask for the other.
    Classic,
}

impl Metrics {
    pub(super) fn wanted(accept: &str) -> Self {
        let open = quality(accept, "application/openmetrics-text", true);
        let classic = quality(accept, "text/plain", false);
        if open > 0 && open >= classic { Self::Open } else { Self::Classic }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Formats of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Findings {
    /// A JSON array.
    Array,
    /// JSON lines.
    Lines,
}

impl Findings {
    pub(super) fn wanted(accept: &str) -> Self {
        let lines = quality(accept, "application/x-ndjson", true);
        if lines > 0 && lines >= quality(accept, "application/json", false) {
            Self::Lines
        } else {
            Self::Array
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Array => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// How much a type is wanted, in thousandths; 0 if it is not. `named`: only under its own name.
fn quality(accept: &str, wanted: &str, named: bool) -> u32 {
    let range = wanted.split('/').next().unwrap_or_default();
    let matching = |entry: &&str| {
        let name = entry.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case(wanted)
            || !named && (name == "*/*" || name.strip_suffix("/*") == Some(range))
    };
    accept
        .split(',')
        .filter(matching)
        .filter(|entry| is_known_version(entry))
        .map(weight)
        .max()
        .unwrap_or(0)
}

/// Later versions of `OpenMetrics` may be what we do not write.
fn is_known_version(entry: &str) -> bool {
    parameter(entry, "version").is_none_or(|version| ["0.0.1", "0.0.4", "1.0.0"].contains(&version))
}

fn weight(entry: &str) -> u32 {
    const FULL: u32 = 1000;
    let Some(weight) = parameter(entry, "q") else { return FULL };
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part = format!("{part:0<3}").chars().take(3).collect::<String>();
    match (whole, part.parse::<u32>()) {
        ("0", Ok(part)) => part,
        ("1", Ok(_)) => FULL,
        _ => 0,
    }
}

fn parameter<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    let parameters = entry.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut named = parameters.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let cases = [
            (prometheus, Metrics::Open),
            ("application/openmetrics-text", Metrics::Open),
            ("application/OpenMetrics-Text; version=\"1.0.0\"", Metrics::Open),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.5", Metrics::Classic),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Metrics::Classic),
            ("application/openmetrics-text;q=0", Metrics::Classic),
            ("*/*", Metrics::Classic),
            ("", Metrics::Classic),
            (";;,q=,=;q=x,\u{1f980}/*;q=9", Metrics::Classic),
        ];
        for (accept, wanted) in cases {
            assert_eq!(Metrics::wanted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn findings_are_an_array_unless_lines_are_asked_for() {
        assert_eq!(Findings::wanted("*/*"), Findings::Array);
        assert_eq!(Findings::wanted("application/x-ndjson"), Findings::Lines);
        assert_eq!(
            Findings::wanted("application/x-ndjson;q=0.1,application/json"),
            Findings::Array
        );
    }
}
