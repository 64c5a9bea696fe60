//! `tcpwatch serve`.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    auth::Auth,
    http::{self, Server},
    model::{Feed, Gauge, Model, Options},
    routes::Routes,
    tls::Tls,
    web_config::WebConfig,
};
use crate::{
    Outcome,
    cli::ServeArgs,
    config,
    core::{comm::shown, filter::Filter, tracker::Rules},
    exit::{Exit, say},
    kernel::{clock, load::Plan},
    notify::{Notifiers, otlp},
    sink::{fan::Fan, text},
    source::{
        attached::Attached,
        live::{self, Beside, Live},
        record, watch,
    },
    stop::Held,
    trace::tape::Tape,
    trace::{pack, recorder, recorder::Recorder},
};

/// Without records of all transitions little goes through the ring.
const RING: u32 = 4 << 20;
const RING_OF_RECORDING: u32 = 16 << 20;
/// What the files of a recording are called after.
const RECORDING: &str = "tcpwatch.tcpw";

/// `tcpwatch serve`.
pub fn command(args: &ServeArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    if !filter.states.is_empty() && args.record.is_none() {
        bail!("--state says which transitions to record, so it needs --record");
    }
    let web = args.web_config.as_deref().map(WebConfig::read).transpose()?.unwrap_or_default();
    if !args.listen.ip().is_loopback() && !args.insecure && !web.keeps_strangers_away() {
        bail!(
            "other hosts can reach {}, and whoever asks there learns which programs talk to whom; passwords in --web-config keep them out, --insecure lets them",
            args.listen
        );
    }
    let scheme = if web.tls_server_config.is_some() { "https" } else { "http" };
    let tls = web.tls_server_config.map(Tls::new).transpose()?;
    let auth = Arc::new(Auth::new(web.basic_auth_users)?);
    let collector = collector(args)?;
    let live = live(args, filter);
    let signals = Held::new()?;
    let mut notifiers = Notifiers::start(&args.notify)?;
    let attached = Attached::new(&live.plan)?;
    let mut stop = signals.stop();
    let listener = http::bind(args.listen)?;
    let address = listener.local_addr().context("ask where it listens")?;
    let mut recorder = recorder(args, &live.rules, &attached)?;
    let _writes = recorder.as_ref().map(|_| stop.writes_file());
    let options = Options {
        linger: args.linger.into(),
        top: usize::try_from(args.top).unwrap_or(usize::MAX),
        count_every: args.count_every.into(),
    };
    let standing = recorder.as_ref().map(Recorder::standing);
    let model = Arc::new(Model::new(options, standing));
    let server = Server { routes: Routes::new(Arc::clone(&model)), auth, tls };
    let mut feed = Feed::new(Arc::clone(&model));
    let mut sink = Fan::new(&mut feed, vec![&mut notifiers]);
    let pushed = collector.map(|(client, every)| {
        let (model, begun) = (Arc::clone(&model), attached.began.real_ns);
        let page = move || model.has_begun().then(|| model.page(clock::now()));
        Box::pin(otlp::push(client, every, begun, page)) as http::Beside
    });
    let serve = move || match http::start(listener, server, pushed) {
        Ok(()) => say(&format!("tcpwatch: metrics at {scheme}://{address}/metrics")),
        Err(error) => log::error!("cannot serve: {error:#}"),
    };
    let mut monitor = Gauge::new(Arc::clone(&model), serve);
    let tape = recorder.as_mut().map(|recorder| recorder as &mut dyn Tape);
    let beside = Beside { meter: None, monitor: Some(&mut monitor) };
    let ran = live::run_beside(&live, attached, &mut stop, &mut sink, tape, beside, || {
        model.is_ready();
        watch::ready(args.ready_file.as_deref())
    });
    record::finish_beside(recorder);
    drop(stop);
    notifiers.finish();
    // Nobody may read it, and the run was none the worse for that.
    let _ = text::write_summary(&mut io::stderr().lock(), &ran?);
    Ok(Exit::Ok)
}

/// Who gets the metrics without asking, and how often.
fn collector(args: &ServeArgs) -> Result<Option<(otlp::Client, Duration)>> {
    let (Some(every), Some(url)) = (args.otlp_metrics, &args.notify.otlp) else {
        return Ok(None);
    };
    let config = otlp::config(otlp::Signal::Metrics, url, &args.notify)?;
    let every = every.map_or_else(|| otlp::every(|name| std::env::var(name).ok()), Ok)?;
    Ok(Some((otlp::Client::new(config)?, every)))
}

fn live(args: &ServeArgs, filter: Filter) -> Live {
    let recorded = args.record.is_some();
    let findings_only = !recorded || args.findings;
    let ring = if findings_only { RING } else { RING_OF_RECORDING };
    Live {
        plan: Plan {
            filter: filter.clone(),
            findings_only,
            ring_bytes: args.ring_size.unwrap_or(ring),
            exact_accept: true,
            details: false,
            follow_from: None,
            tally: true,
        },
        rules: Rules {
            linger: args.linger.into(),
            filter,
            findings_only,
            include_half_open: args.include_half_open,
            tell_culprits: false,
        },
        duration: args.duration,
        ends_with_reader: false,
    }
}

fn recorder(args: &ServeArgs, rules: &Rules, attached: &Attached) -> Result<Option<Recorder>> {
    let Some(directory) = &args.record else { return Ok(None) };
    if !directory.is_dir() {
        bail!("--record {}: that is no directory", shown(directory));
    }
    let options = recorder::Options {
        path: directory.join(RECORDING),
        level: pack::LEVEL,
        rotate_size: Some(args.rotate_size),
        rotate_every: args.rotate_every,
        keep: usize::try_from(args.keep).ok(),
    };
    Recorder::create(&options, record::meta(rules, attached.began)).map(Some)
}
