//! What the agent of a fleet costs: idle, at a high rate of connections, and with many that linger.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Scale,
    table::{Table, cell},
    tool::Tool,
};
use crate::{
    hold::Holder,
    load::{churn, in_namespace},
    tool::{median, tcpwatch},
};

/// How long it is left alone.
const IDLE: Duration = Duration::from_secs(30);
/// Connections a second, and seconds of that.
const PACE: u32 = 20_000;
const SECONDS: u32 = 5;
const LINGERING: u32 = 10_000;
/// What is asked within this time is answered with the page that there is.
const APART: Duration = Duration::from_millis(300);
const ADDRESS: &str = "127.0.0.1:9469";

/// Measures.
pub(crate) fn run(scale: &Scale) -> Result<Vec<Table>> {
    let mut table = Table {
        title: "The agent".to_owned(),
        command: "cargo xtask bench serve",
        about: format!(
            "`tcpwatch serve`, counting sockets every 15 s. CPU is that of the agent, of one core, over {} s; \
             at {PACE} connections a second (fewer if the machine cannot make them) over the time that \
             {} of them take; a scrape is the median of {}, from the connection to the last byte.",
            IDLE.as_secs(),
            PACE * SECONDS,
            scale.rounds * 4,
        ),
        columns: vec!["CPU, %", "RSS, MB", "conn/s", "scrape, ms", "page, KB", "recorded, B/conn"],
        rows: Vec::new(),
    };
    for (name, load) in [
        ("idle", Load::Idle),
        ("idle, 10,000 connections linger", Load::Lingering),
        ("busy", Load::Busy),
        ("busy, `--record`", Load::Recorded),
    ] {
        let cells = in_namespace(|| measure(load, scale.rounds * 4))?;
        table.row(name, cells);
    }
    Ok(vec![table])
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Idle,
    Lingering,
    Busy,
    Recorded,
}

fn measure(load: Load, scrapes: u32) -> Result<Vec<super::table::Cell>> {
    let lingering = if load == Load::Lingering { LINGERING } else { 0 };
    let recording = std::env::temp_dir().join("tcpwatch-bench-serve");
    let _ = fs::remove_dir_all(&recording);
    fs::create_dir_all(&recording).context("make a place to record to")?;
    let holder = (lingering > 0).then(|| Holder::filled(0, lingering, lingering)).transpose()?;
    let mut command = tcpwatch();
    command.args(["serve", "--linger", "1s", "--listen", ADDRESS]);
    if load == Load::Recorded {
        command.arg("--record").arg(&recording);
    }
    let agent = Tool::start(command, true)?;
    if lingering > 0 {
        wait_for(lingering)?;
    }
    agent.settled_cpu_ns()?;
    let before = agent.cpu_ns()?;
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = Instant::now();
    let speed = if matches!(load, Load::Busy | Load::Recorded) {
        Some(churn(PACE * SECONDS, Some(PACE))?.connections_per_second)
    } else {
        std::thread::sleep(IDLE);
        None
    };
    let elapsed = start.elapsed();
    let used = Duration::from_nanos(agent.cpu_ns()? - before);
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..scrapes {
        std::thread::sleep(APART);
        #[expect(clippy::disallowed_methods, reason = "it measures time")]
        let start = Instant::now();
        bytes = scrape()?.len();
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let resident = agent.resident_mb()?;
    agent.stop()?;
    drop(holder);
    let recorded = (load == Load::Recorded).then(|| size(&recording)).transpose()?;
    fs::remove_dir_all(&recording).context("remove the recording")?;
    #[expect(clippy::cast_precision_loss, reason = "kilobytes for people")]
    let kilobytes = bytes as f64 / 1024.0;
    #[expect(clippy::cast_precision_loss, reason = "bytes for people")]
    let recorded = recorded.map(|bytes| bytes as f64 / f64::from(PACE * SECONDS));
    Ok(vec![
        cell(used.as_secs_f64() / elapsed.as_secs_f64() * 100.0, 3),
        cell(resident, 1),
        cell(speed, 0),
        cell(median(times), 2),
        cell(kilobytes, 1),
        cell(recorded, 1),
    ])
}

fn size(directory: &Path) -> Result<u64> {
    let files = fs::read_dir(directory).context("list what was recorded")?;
    files.map(|file| Ok(file?.metadata()?.len())).sum()
}

/// Waits until so many connections linger.
fn wait_for(lingering: u32) -> Result<()> {
    const TRIES: u32 = 300;
    for _ in 0..TRIES {
        let page = scrape()?;
        let counts = page.lines().filter_map(|line| {
            line.strip_prefix("tcpwatch_open_findings{")?.rsplit(' ').next()?.parse::<u32>().ok()
        });
        if counts.sum::<u32>() >= lingering {
            return Ok(());
        }
        std::thread::sleep(APART);
    }
    bail!("the agent does not find {lingering} connections that linger")
}

fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect(ADDRESS).context("connect to the agent")?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
