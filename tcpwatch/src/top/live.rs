//! `tcpwatch top`: the screen on what happens now.

use std::{io, sync::Arc};

use anyhow::Result;

use super::{
    app::{App, Subject},
    around::{Costs, Tape},
    driver::{About, Driver, Running, Shared, Stage},
    model::{Model, Sort},
    scope,
};
use crate::{
    Outcome,
    cli::TopArgs,
    config,
    core::{
        record::{Record, Summary},
        time::{Nanos, Timestamp},
        tracker::Rules,
        unseen::Unseen,
    },
    exit,
    kernel::{clock, load::Plan, processes},
    output,
    sink::Sink as _,
    sink::text::{Style, TextSink},
    source::{
        attached::Attached,
        live::{self, Beside, Live},
        meter::Meter,
        record,
        watch::ready,
    },
    stop::Held,
    trace::recorder::{Recorder, Standing},
    trace::tape,
};

/// What lingers for this long is a finding, unless it is said otherwise.
const LINGER: Nanos = Nanos(30_000_000_000);
/// Culprits that are told of at the end.
const TOLD: usize = 10;

/// Watches and shows the screen.
pub(super) fn command(args: &TopArgs) -> Outcome {
    let live = live(args)?;
    let signals = Held::new()?;
    let attached = Attached::new(&live.plan)?;
    let mut stop = signals.stop();
    let (over, alarm) = (stop.flag(), stop.alarm());
    let mut recorder = record::beside(args.record.as_deref(), &live, &attached)?;
    let writes = recorder.as_ref().map(|_| stop.writes_file());
    let meter = Arc::new(Meter::default());
    let about = About {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        scope: scope::words(&live.rules.filter),
        unseen: (!processes::sees_all_pids()).then_some(Unseen::Processes),
        linger: live.rules.linger,
        colour: output::colour(true),
    };
    let stage = Watching {
        meter: Arc::clone(&meter),
        standing: recorder.as_ref().map(Recorder::standing),
        read: (clock::now(), clock::used_by_process()),
        share: None,
    };
    let shared = Shared::new(Model::new(live.rules.linger));
    let mut sink = shared.clone();
    let mut shown: Option<Running> = None;
    let tape = recorder.as_mut().map(|recorder| recorder as &mut dyn tape::Tape);
    let beside = Beside { meter: Some(meter), monitor: None };
    let ran = live::run_beside(&live, attached, &mut stop, &mut sink, tape, beside, || {
        // Not before: what goes wrong until here is told where it always is.
        let driver = Driver::open(shared.clone(), App::new(Subject::Live), about, Box::new(stage))?;
        shown = Some(driver.start(over, alarm)?);
        ready(args.ready_file.as_deref())
    });
    let closed = shown.map_or(Ok(()), Running::end);
    record::finish_beside(recorder);
    drop(writes);
    let summary = ran?;
    closed?;
    tell(&shared, &summary)?;
    exit::judge(args.fail_on_leak, summary.leaks(), &summary)
}

fn live(args: &TopArgs) -> Result<Live> {
    let filter = config::filter(&args.filter)?;
    Ok(Live {
        plan: Plan {
            filter: filter.clone(),
            findings_only: args.findings,
            ring_bytes: args.ring_size,
            exact_accept: true,
            details: false,
            follow_from: None,
            tally: false,
        },
        rules: Rules {
            linger: args.linger.map_or(LINGER, Nanos::from),
            filter,
            findings_only: args.findings,
            include_half_open: args.include_half_open,
            tell_culprits: false,
        },
        duration: args.duration,
        ends_with_reader: true,
    })
}

/// What stays on the terminal when the screen is gone: the culprits and the summary, as lines.
pub(super) fn tell(shared: &Shared, summary: &Summary) -> Result<()> {
    let style = Style {
        colour: output::colour(true),
        width: Some(output::stdout_width()),
        time: false,
        elapsed: false,
        wide: false,
    };
    let mut sink = TextSink::new(io::BufWriter::new(io::stdout()), style);
    let mut model = shared.lock();
    model.groups.sort_by(Sort::Hurt);
    for group in model.groups.iter().take(TOLD) {
        let culprit = model.culprit(group);
        let record = match &culprit.example {
            Some(only) if culprit.count == 1 => Record::Finding(only),
            _ => Record::Culprit(&culprit),
        };
        sink.record(model.clock(), &record)?;
    }
    sink.record(model.clock(), &Record::Summary(summary))?;
    Ok(sink.flush()?)
}

/// A run behind the screen.
struct Watching {
    meter: Arc<Meter>,
    standing: Option<Standing>,
    /// When the CPU time of the process was read, and what it was.
    read: (Timestamp, Nanos),
    share: Option<u64>,
}

impl Stage for Watching {
    fn costs(&mut self) -> Costs {
        let (at, used) = self.read;
        let now = clock::now();
        let span = now.since(at);
        if span >= Nanos::SECOND {
            let total = clock::used_by_process();
            self.share = Some(total.0.saturating_sub(used.0).saturating_mul(1000) / span.0);
            self.read = (now, total);
        }
        Costs { kernel_ns: self.meter.each(), agent: self.share }
    }

    fn tape(&self) -> Option<Tape> {
        let progress = self.standing.as_ref()?.progress();
        Some(Tape { bytes: progress.bytes, failing: progress.failing })
    }
}
