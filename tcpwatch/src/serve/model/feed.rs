//! How the run tells the model: as a sink of what it finds, and as a monitor of how it goes.

use std::{io, sync::Arc};

use super::{Model, REST_AFTER_COUNT};
use crate::{
    core::{
        finding::Finding,
        record::{Census, Record},
        time::{ClockMark, Nanos, Timestamp},
    },
    kernel::{facts, meters::Meters},
    sink::Sink,
    source::monitor::{Counts, Monitor},
};

/// Tells what is found.
pub struct Feed {
    model: Arc<Model>,
    /// Told since the last flush.
    findings: Vec<Finding>,
    lost: u64,
}

impl Feed {
    /// Nothing told yet.
    pub fn new(model: Arc<Model>) -> Self {
        Self { model, findings: Vec::new(), lost: 0 }
    }
}

impl Sink for Feed {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Finding(finding) => self.findings.push((*finding).clone()),
            Record::Lost(lost) => self.lost = lost.total,
            Record::Transition(_) | Record::Culprit(_) | Record::Summary(_) => {}
        }
        Ok(())
    }

    fn census(&mut self, clock: &ClockMark, census: &Census) -> io::Result<()> {
        let mut now = self.model.now();
        (now.clock, now.heard) = (*clock, census.at);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.findings.is_empty() && self.lost == 0 {
            return Ok(());
        }
        let mut now = self.model.now();
        now.lost = now.lost.max(self.lost);
        self.lost = 0;
        let now = &mut *now;
        // Which end is the server's, where nobody knows, is told by what many have in common.
        let known = now.findings.values().map(AsRef::as_ref).chain(&self.findings);
        let known = known.map(|finding| &finding.socket);
        now.culprits.count_ends(known.filter(|socket| socket.role.is_none()));
        self.findings.drain(..).for_each(|finding| now.take(finding));
        Ok(())
    }
}

/// Tells how the run goes.
pub struct Gauge {
    model: Arc<Model>,
    attached: Option<Box<dyn FnOnce()>>,
}

impl Gauge {
    /// `attached` is called when everything is attached.
    pub fn new(model: Arc<Model>, attached: impl FnOnce() + 'static) -> Self {
        Self { model, attached: Some(Box::new(attached)) }
    }
}

impl Monitor for Gauge {
    fn attached(&mut self, meters: Meters) {
        // Once only, so there is none yet.
        let _ = self.model.meters.set(meters);
        if let Some(attached) = self.attached.take() {
            attached();
        }
    }

    fn wants_count(&self, at: Timestamp) -> bool {
        at >= self.model.now().next_count
    }

    fn counted(&mut self, at: Timestamp, counts: io::Result<Counts>, cost: Nanos) {
        let names = facts::namespaces();
        let mut now = self.model.now();
        let rest = Nanos(cost.0.saturating_mul(REST_AFTER_COUNT));
        now.next_count = at + rest.max(self.model.options.count_every);
        match counts {
            Ok(counts) => {
                now.names =
                    names.into_iter().map(|(netns, name)| (netns, name.to_string())).collect();
                now.counts = Some(counts);
            }
            Err(error) => log::warn!("cannot count sockets: {error}"),
        }
    }

    fn looked(&mut self, at: Timestamp, took: Nanos, succeeded: bool) {
        self.model.now().looked(at, took, succeeded);
    }
}
