//! A sink that shows every record in every way, to nobody.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use tcpwatch::{
    core::{
        record::Record,
        time::{ClockMark, Nanos},
    },
    report::{
        Collector,
        html::{self, Source},
        json, text,
    },
    sink::Sink,
    sink::{
        csv::CsvSink,
        json::JsonSink,
        text::{Style, TextSink},
    },
};

/// Takes text, and only such as cannot move a cursor.
struct Harmless;

impl Write for Harmless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wild = bytes.iter().find(|&&byte| byte.is_ascii_control() && byte != b'\n');
        assert!(wild.is_none(), "byte {wild:?} in {}", bytes.escape_ascii());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Text, JSON, CSV, and a report in each of its ways.
pub(crate) struct Everything {
    text: TextSink<Harmless>,
    json: JsonSink<Harmless>,
    csv: CsvSink<io::Sink>,
    collector: Collector,
}

impl Everything {
    /// Of a pipeline for which what lingers for `linger` is a finding.
    pub(crate) fn new(linger: Nanos) -> Self {
        let style = Style { colour: false, width: Some(80), time: true, elapsed: true, wide: true };
        Self {
            text: TextSink::new(Harmless, style),
            json: JsonSink::new(Harmless),
            csv: CsvSink::new(io::sink()),
            collector: Collector::for_page(linger),
        }
    }

    /// The report, shown.
    pub(crate) fn report(&self) -> io::Result<()> {
        let report = self.collector.report();
        json::write(&mut Harmless, &report)?;
        let style = text::Style { width: 80, colour: false, top: 5, zone: TimeZone::UTC };
        text::write(&mut Harmless, &report, &style)?;
        // A page takes longer than all the rest.
        if report.totals.findings == 0 {
            return Ok(());
        }
        html::write(&mut Harmless, &Source::default(), &report, &self.collector.listed())
    }
}

impl Sink for Everything {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.text.record(clock, record)?;
        self.json.record(clock, record)?;
        self.csv.record(clock, record)?;
        self.collector.record(clock, record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.text.flush()?;
        self.json.flush()?;
        self.csv.flush()
    }
}
