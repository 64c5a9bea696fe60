//! Open findings as a body that is made while it is sent: a hundred thousand of them are no page of
//! memory. A client that reads slowly has one piece of it; the findings are everybody's.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::{model::OpenFindings, negotiate::Findings as Format};
use crate::{core::record::Record, sink::Sink as _, sink::json::JsonSink};

/// Bytes of a piece, about.
const PIECE: usize = 16 << 10;

/// The body.
pub(super) struct Findings {
    open: Arc<OpenFindings>,
    /// Which comes next.
    next: usize,
    format: Format,
    ended: bool,
}

impl Findings {
    pub(super) fn new(open: Arc<OpenFindings>, format: Format) -> Self {
        Self { open, next: 0, format, ended: false }
    }

    /// The next piece; `None` at the end.
    fn piece(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let array = self.format == Format::Array;
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let first = self.next == 0;
            let Some(finding) = self.open.findings.get(self.next) else {
                self.ended = true;
                if array {
                    piece.extend_from_slice(if first { b"[]\n" } else { b"]\n" });
                }
                break;
            };
            if array {
                piece.push(if first { b'[' } else { b',' });
            }
            self.next += 1;
            let finding = finding.as_of(self.open.at);
            // Memory takes everything.
            let _ = JsonSink::new(&mut piece).record(&self.open.clock, &Record::Finding(&finding));
        }
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

impl Body for Findings {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        core::{
            finding::{Finding, Status},
            socket::SocketId,
            time::{ClockMark, Nanos, Timestamp},
        },
        notify::finding,
        serve::model::{Feed, Model, Options},
    };

    fn model() -> Arc<Model> {
        let options = Options { linger: Nanos::SECOND, top: 1, count_every: Nanos::SECOND };
        Arc::new(Model::new(options, None))
    }

    /// Reports a finding with each of these ids.
    fn tell(model: &Arc<Model>, ids: std::ops::Range<u64>, change: impl Fn(&mut Finding)) {
        let mut feed = Feed::new(Arc::clone(model));
        for id in ids {
            let mut finding = finding();
            finding.socket.id = Some(SocketId(id));
            change(&mut finding);
            feed.record(&ClockMark::default(), &Record::Finding(&finding)).unwrap();
        }
        feed.flush().unwrap();
    }

    fn read(open: Arc<OpenFindings>, format: Format) -> String {
        let mut body = Findings::new(open, format);
        let pieces = std::iter::from_fn(|| body.piece());
        let all: Vec<u8> =
            pieces.inspect(|piece| assert!(piece.len() < 2 * PIECE)).flatten().collect();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_body_is_a_whole_array_or_whole_lines() {
        let model = model();
        let at = Timestamp(10 * Nanos::SECOND.0);
        let open = || Arc::new(model.findings(at));
        assert_eq!(read(open(), Format::Array), "[]\n");
        assert_eq!(read(open(), Format::Lines), "");
        tell(&model, 0..300, |_| {});
        let array: Value = serde_json::from_str(&read(open(), Format::Array)).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 300);
        assert_eq!(array[7]["socket"], 7);
        assert_eq!(array[7]["linger_ns"], 9_234_567_890_u64, "as it is at that moment");
        assert_eq!(read(open(), Format::Lines).lines().count(), 300);
    }

    /// What many slow readers hold is one copy of each finding, and what has changed meanwhile.
    #[test]
    fn who_reads_slowly_has_no_copy() {
        const FINDINGS: u64 = 1000;
        const CHANGED: u64 = 10;
        let model = model();
        tell(&model, 0..FINDINGS, |_| {});
        let mut readers = Vec::new();
        for second in 10..74 {
            let at = Timestamp(second * Nanos::SECOND.0);
            let mut reader = Findings::new(Arc::new(model.findings(at)), Format::Array);
            assert!(reader.piece().is_some());
            readers.push(reader);
        }
        tell(&model, 0..CHANGED, |finding| finding.status = Status::Still);
        readers.push(Findings::new(Arc::new(model.findings(Timestamp(99))), Format::Array));
        let held = readers.iter().flat_map(|reader| &reader.open.findings).map(Arc::as_ptr);
        let held: std::collections::HashSet<_> = held.collect();
        assert_eq!(held.len() as u64, FINDINGS + CHANGED);
    }
}
