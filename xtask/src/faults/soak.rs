//! Ten minutes of connections at a pace and of leaks that begin and end all the time, with a live run
//! beside an agent that records and is scraped. Neither may grow.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Fault, Setting,
    figures::{Figures, tenths_of_mib, thousands},
    hidden::Hidden,
    ledger::Ledger,
    run::Dir,
};
use crate::{
    hold::Holder,
    load::{Churn, TRANSITIONS_PER_CONNECTION, TRANSITIONS_PER_LISTENER, namespace, quiet},
    tool::{Tool, median, now},
};

pub(super) const FAULT: Fault = Fault {
    name: "soak",
    what: "nothing, for ten minutes: 1,000 connections a second and 40 leaks that begin and end every few seconds, with `tcpwatch -j`, and beside it `tcpwatch serve --record` with files that rotate, scraped every second",
    seen: "every transition, every leak, nothing lost, and memory that does not grow: resident memory in the last quarter is that of the second",
    seconds: 600,
    quick: None,
    run,
};

const PACE: u32 = 1_000;
const LEAKS: u32 = 20;
/// Processes that leak at a time.
const HOLDERS: usize = 2;
/// How long each of them lives.
const LIFE: Duration = Duration::from_secs(3);
const SAMPLE: Duration = Duration::from_secs(1);
/// What memory may differ by: allocators and page tables are not exact.
const SLACK: f64 = 2.0 * 1024.0 * 1024.0;
/// Fewer samples than this show nothing.
const LEAST: usize = 20;
const ADDRESS: &str = "127.0.0.1:9469";

fn run(setting: &Setting) -> Result<Figures> {
    ensure!(setting.seconds >= LEAST as u64, "shorter than {LEAST} s says nothing about growth");
    let (dir, namespace) = (Dir::new()?, namespace()?);
    let path = dir.path().to_str().context("a path that is no text")?;
    let hidden = Hidden::start()?;
    let mut live = Tool::tcpwatch(&["-j", "-N", &namespace, "--linger", "500ms"], Stdio::piped())?;
    let reader = read(live.stdout()?);
    let keep = ["--record", path, "--rotate-size", "4M", "--keep", "3"];
    let serve = [&["serve", "--linger", "500ms", "--listen", ADDRESS], &keep[..]].concat();
    let serve = Tool::tcpwatch(&serve, Stdio::null())?;
    let before = [live.cpu()?, serve.cpu()?];
    let start = now();
    let churn = Churn::start(Some(PACE))?;
    let end = start + Duration::from_secs(setting.seconds);
    let leaks = leak(end);
    let (memory, scrapes) = sample(end, &live, &serve)?;
    let holders = leaks.join().map_err(|_| anyhow!("the leaks panicked"))??;
    let connections = churn.stop()?;
    let elapsed = start.elapsed();
    let shares = [live.cpu()?, serve.cpu()?];
    serve.stop()?;
    // The scrapes had connections, too, and so has the agent that was asked.
    quiet(0)?;
    let ended = live.stop()?;
    ensure!(ended.status.success() && ended.stderr.is_empty(), "it says: {}", ended.stderr);
    let mut ledger = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
    ledger.hidden = hidden.stop()?;
    check(&ledger, connections, holders, scrapes)?;
    let [live, serve] = memory.map(|samples| Growth::of(&samples));
    let (live, serve) = (live?, serve?);
    live.is_none("tcpwatch -j")?;
    serve.is_none("tcpwatch serve")?;
    let [one, other] = [0, 1].map(|at| {
        let used: Duration = shares[at].saturating_sub(before[at]);
        format!("{:.1} % of a core", 100.0 * used.as_secs_f64() / elapsed.as_secs_f64())
    });
    Ok(Figures::default()
        .with("minutes", setting.seconds / 60)
        .with("transitions", thousands(ledger.transitions))
        .with("lost", ledger.lost)
        .with("leaks found, and ended", thousands(ledger.count_of("ended")))
        .with("memory of the live run", format!("{live}, {one}"))
        .with("of `serve`", format!("{serve}, {other}")))
}

/// All was seen, and each leak was found and ended.
fn check(ledger: &Ledger, connections: u64, holders: u64, scrapes: u64) -> Result<()> {
    // Of a leak, too, whose socket is closed in the end. The listener of the agent opens before the load
    // and closes within it; it shuts connections down before it closes them.
    let leaks = holders * u64::from(LEAKS);
    let sent = (connections + leaks + scrapes) * TRANSITIONS_PER_CONNECTION
        + (holders + 2) * TRANSITIONS_PER_LISTENER
        + ledger.again;
    ledger.is_complete(sent)?;
    ensure!(ledger.lost == 0, "{} were lost", ledger.lost);
    let (opened, ended) = (ledger.count_of("open"), ledger.count_of("ended"));
    ensure!(opened == leaks, "{opened} findings of {leaks} leaks");
    ensure!(ended == leaks, "{ended} of {leaks} findings ended");
    Ok(())
}

/// Processes that leak, one after the other, until then; says how many there were.
fn leak(end: Instant) -> JoinHandle<Result<u64>> {
    thread::spawn(move || {
        let (mut count, mut alive) = (0_u16, std::collections::VecDeque::new());
        while now() < end {
            let mut holder = Holder::start(count, LEAKS, LEAKS, 0)?;
            holder.held()?;
            alive.push_back(holder);
            count += 1;
            if alive.len() > HOLDERS
                && let Some(oldest) = alive.pop_front()
            {
                // Each other one ends without a word.
                if count % 2 == 0 { oldest.kill()? } else { oldest.close()? }
            }
            thread::sleep(LIFE / 2);
        }
        for holder in alive {
            holder.close()?;
        }
        Ok(count.into())
    })
}

/// Resident memory of both, each second, until then; how often the agent was scraped.
fn sample(end: Instant, live: &Tool, serve: &Tool) -> Result<([Vec<f64>; 2], u64)> {
    let mut samples = [Vec::new(), Vec::new()];
    let mut scrapes = 0;
    while now() < end {
        thread::sleep(SAMPLE);
        scrape()?;
        scrapes += 1;
        for (samples, tool) in samples.iter_mut().zip([live, serve]) {
            #[expect(clippy::cast_precision_loss, reason = "a size for people")]
            samples.push(tool.memory()? as f64);
        }
    }
    Ok((samples, scrapes))
}

fn scrape() -> Result<()> {
    let mut stream = TcpStream::connect(ADDRESS).context("connect to the agent")?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    ensure!(page.contains("tcpwatch_transitions"), "the agent answers: {page}");
    Ok(())
}

fn read(pipe: impl std::io::Read + Send + 'static) -> JoinHandle<Result<Ledger>> {
    thread::spawn(move || {
        let mut ledger = Ledger::counting();
        ledger.read(BufReader::with_capacity(1 << 20, pipe))?;
        Ok(ledger)
    })
}

/// Memory in the second quarter of the time, and in the last; in the first it may still grow.
pub(super) struct Growth {
    early: f64,
    late: f64,
}

impl Growth {
    pub(super) fn of(samples: &[f64]) -> Result<Self> {
        let quarter = samples.len() / 4;
        let part = |from: usize, to: usize| median(samples[from..to].iter().copied());
        let early = part(quarter, 2 * quarter).context("too few samples")?;
        let late = part(3 * quarter, samples.len()).context("too few samples")?;
        Ok(Self { early, late })
    }

    pub(super) fn is_none(&self, who: &str) -> Result<()> {
        ensure!(self.late < self.early + SLACK, "{who} grows: {self}");
        Ok(())
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} then {}", tenths_of_mib(self.early), tenths_of_mib(self.late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_in_the_end_is_told() {
        let mib = 1024.0 * 1024.0;
        let flat: Vec<f64> = (0..100).map(|at| if at < 20 { 1.0 } else { 30.0 * mib }).collect();
        Growth::of(&flat).unwrap().is_none("it").unwrap();
        let growing: Vec<f64> = (0..100).map(|at| f64::from(at) * mib).collect();
        assert!(Growth::of(&growing).unwrap().is_none("it").is_err());
    }
}
