//! Open findings as a body that is made while it is sent: a hundred thousand of them are no page of
//! memory.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    vec::IntoIter,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::negotiate::Findings as Format;
use crate::{
    core::{
        finding::Finding,
        record::{Record, Sink as _},
        time::ClockMark,
    },
    sink::json::JsonSink,
};

/// Bytes of a piece, about.
const PIECE: usize = 64 << 10;

/// The body.
pub(super) struct Findings {
    clock: ClockMark,
    left: IntoIter<Finding>,
    format: Format,
    began: bool,
    ended: bool,
}

impl Findings {
    pub(super) fn new(clock: ClockMark, findings: Vec<Finding>, format: Format) -> Self {
        Self { clock, left: findings.into_iter(), format, began: false, ended: false }
    }

    /// The next piece; `None` at the end.
    fn piece(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let array = self.format == Format::Array;
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let Some(finding) = self.left.next() else {
                self.ended = true;
                if array {
                    piece.extend_from_slice(if self.began { b"]\n" } else { b"[]\n" });
                }
                break;
            };
            if array {
                piece.push(if self.began { b',' } else { b'[' });
            }
            self.began = true;
            // Memory takes everything.
            let _ = JsonSink::new(&mut piece).record(&self.clock, &Record::Finding(&finding));
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
