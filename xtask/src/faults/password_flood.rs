//! Clients that guess passwords as fast as they can, half of which hang up before they are answered.

use std::{
    collections::VecDeque,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Fault, Setting, figures::Figures, run::Dir};
use crate::{
    load::namespace,
    tool::{Background, PATIENCE, Tool, now},
};

pub(super) const FAULT: Fault = Fault {
    name: "password-flood",
    what: "clients of `tcpwatch serve` guess passwords (bcrypt, cost 12) as fast as they can, half of which hang up before they are answered",
    seen: "one check at a time: one core at most, and no more threads; a client that was admitted before is answered at once, and one that was not, elsewhere, after three checks at most",
    seconds: 20,
    quick: None,
    run,
};

/// "secret".
const CONFIG: &str =
    "basic_auth_users:\n  alice: $2b$12$USIF.t/9nX73c7GmJ5Xy..GpGIMIsXBSNaTkRgIEUTUSbbwr7peK6\n";
const PORT: u16 = 9480;
/// As two sources: the guesses come from one.
const GUESSES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
const RIGHTFUL: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), PORT);
/// The time between two guesses.
const PACE: Duration = Duration::from_millis(5);
/// Connections that a guesser keeps open: more than the agent does.
const OPEN: usize = 100;
/// How often the rightful client asks.
const EVERY: Duration = Duration::from_millis(250);
/// Threads that the agent may have more than without clients.
const MORE_THREADS: usize = 4;
/// What CPU time may be more than a core: what is not a check.
const SLACK: f64 = 1.25;

fn run(setting: &Setting) -> Result<Figures> {
    let dir = Dir::new()?;
    let config = dir.join("web.yml");
    fs::write(&config, CONFIG)?;
    let config = config.to_str().context("a path that is no text")?;
    let (listen, namespace) = (format!("[::]:{PORT}"), namespace()?);
    let flags = ["serve", "-N", &namespace, "--listen", &listen, "--web-config", config];
    let agent = Tool::tcpwatch(&flags, Stdio::null())?;
    let (threads, cpu, began) = (threads(&agent)?, agent.cpu()?, now());
    let flood = Background::start(|over| Ok(guess(over)));
    // Until the flood has filled what it can.
    thread::sleep(Duration::from_secs(1));
    let first = answered()?;
    let (mut longest, mut most, mut asked) = (Duration::ZERO, 0, 0);
    while began.elapsed() < Duration::from_secs(setting.seconds) {
        longest = longest.max(answered()?);
        most = most.max(self::threads(&agent)?);
        asked += 1;
        thread::sleep(EVERY);
    }
    let (cpu, wall) =
        (agent.cpu()?.saturating_sub(cpu).as_secs_f64(), began.elapsed().as_secs_f64());
    let guesses = flood.stop()?;
    agent.stop()?;
    ensure!(cpu < wall * SLACK, "{cpu:.1} s of CPU in {wall:.1} s");
    ensure!(most <= threads + MORE_THREADS, "{most} threads, {threads} without the flood");
    ensure!(longest < Duration::from_secs(1), "who was admitted waited for {longest:?}");
    Ok(Figures::default()
        .with("guesses", guesses)
        .with("seconds", format!("{wall:.0}"))
        .with("CPU", format!("{cpu:.1} s"))
        .with("threads at most", format!("{most} ({threads} without clients)"))
        .with("first answer to the rightful client", format!("{} ms", first.as_millis()))
        .with("the longest of its next", format!("{} ms of {asked}", longest.as_millis())))
}

/// Guesses until it is over; says how often.
fn guess(over: &AtomicBool) -> u64 {
    let (mut open, mut guesses) = (VecDeque::new(), 0);
    while !over.load(Relaxed) {
        // The agent has made room for others if it is gone.
        if let Ok(stream) = ask(GUESSES, &format!("alice:{guesses}"))
            && guesses % 2 == 0
        {
            open.push_back(stream);
        }
        if open.len() > OPEN {
            open.pop_front();
        }
        guesses += 1;
        thread::sleep(PACE);
    }
    guesses
}

/// How long the rightful client waits for its answer.
fn answered() -> Result<Duration> {
    let asked = now();
    let mut stream = ask(RIGHTFUL, "alice:secret")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the rightful client gets no answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the rightful client is refused: {answer}");
    Ok(asked.elapsed())
}

fn ask(address: SocketAddr, login: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let login = STANDARD.encode(login);
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {login}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn threads(agent: &Tool) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/task", agent.pid()))?.count())
}
