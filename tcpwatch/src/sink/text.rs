//! Text for people: a row per transition, two lines per finding, a summary at the end.
//!
//! Columns are chosen once, for the width of the terminal; nothing is ever cut, so a long
//! address moves its row rather than hiding its end.

mod summary;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

pub use self::summary::write_summary;
use super::{culprit, wall};
use crate::{
    core::{
        advice,
        culprits::{Culprit, WORTH_TELLING},
        evidence,
        finding::{Finding, Status},
        input::Transition,
        record::{Lost, Place, Record},
        socket::{Protocol, Socket},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
    },
    sink::Sink,
};

/// How to show text.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag the user may type")]
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Use colours.
    pub colour: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
    /// Show the time of day.
    pub time: bool,
    /// Show seconds since the first record.
    pub elapsed: bool,
    /// Show every column.
    pub wide: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    /// 80 columns: the local end is its port.
    Compact,
    /// 107 columns.
    Normal,
    /// Everything: how the owner is known, namespace, user, ids, bytes.
    Wide,
}

const NORMAL_WIDTH: usize = 106;
const TIME_WIDTH: usize = 13;
const INDENT: usize = 4;

/// Writes text.
pub struct TextSink<W: Write> {
    out: W,
    style: Style,
    columns: Columns,
    headed: bool,
    first: Option<Timestamp>,
    /// Findings that were not shown one by one.
    hidden: u64,
}

impl<W: Write> TextSink<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W, style: Style) -> Self {
        let times = usize::from(style.time) + usize::from(style.elapsed);
        let room = style.width.unwrap_or(usize::MAX).saturating_sub(times * TIME_WIDTH);
        let columns = match () {
            () if style.wide => Columns::Wide,
            () if room >= NORMAL_WIDTH => Columns::Normal,
            () => Columns::Compact,
        };
        Self { out, style, columns, headed: false, first: None, hidden: 0 }
    }

    fn times(&mut self, clock: &ClockMark, at: Timestamp) -> String {
        let first = *self.first.get_or_insert(at);
        let mut text = String::new();
        if self.style.time {
            let _ = write!(text, "{:<13}", time_of_day(clock, at));
        }
        if self.style.elapsed {
            let _ = write!(text, "{:<13.6}", seconds(at.since(first)));
        }
        text
    }

    fn header(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.headed, true) {
            return Ok(());
        }
        let mut line = String::new();
        if self.style.time {
            let _ = write!(line, "{:<13}", "TIME");
        }
        if self.style.elapsed {
            let _ = write!(line, "{:<13}", "TIME(s)");
        }
        let _ = match self.columns {
            Columns::Compact => write!(
                line,
                "{:<7} {:<9} {:<6} {:<21} {:<25} {:>7}",
                "PID", "COMM", "LPORT", "REMOTE", "OLD -> NEW", "MS"
            ),
            Columns::Normal => write!(
                line,
                "{:<7} {:<15} {:<21}    {:<21} {:<11} -> {:<11} {:>9}",
                "PID", "COMM", "LOCAL", "REMOTE", "OLD", "NEW", "MS"
            ),
            Columns::Wide => write!(
                line,
                "{:<7} {:<15} {:<8} {:<21}    {:<21} {:<11} -> {:<11} {:>11} {:>10} {:>6} {:>10} {:>10} {:>8} {:>8} {:>4} {:<5}",
                "PID",
                "COMM",
                "HOW",
                "LOCAL",
                "REMOTE",
                "OLD",
                "NEW",
                "MS",
                "NETNS",
                "UID",
                "RX",
                "TX",
                "UNREAD",
                "UNSENT",
                "ERR",
                "PROTO"
            ),
        };
        writeln!(self.out, "{line}")
    }

    fn transition(&mut self, clock: &ClockMark, t: &Transition) -> io::Result<()> {
        self.header()?;
        let times = self.times(clock, t.at);
        let (pid, comm) = owner(&t.socket);
        let ms = t.in_state().map_or_else(|| "-".to_owned(), milliseconds);
        let arrow = advice::arrow(&t.socket);
        let remote = remote(&t.socket);
        let line = match self.columns {
            Columns::Compact => {
                let change = format!("{} -> {}", t.old, t.new);
                let port = format!(":{}", t.socket.local.port());
                format!("{pid:<7} {comm:<9.9} {port:<6} {remote:<21} {change:<25} {ms:>7}")
            }
            Columns::Normal => format!(
                "{pid:<7} {comm:<15} {:<21} {arrow} {remote:<21} {:<11} -> {:<11} {ms:>9}",
                t.socket.local.to_string(),
                t.old,
                t.new,
            ),
            Columns::Wide => wide(t, &pid, &comm, arrow, &remote),
        };
        let line = if t.new == State::CloseWait { self.paint("33", &line) } else { line };
        writeln!(self.out, "{times}{}", line.trim_end())
    }

    fn finding(&mut self, clock: &ClockMark, f: &Finding) -> io::Result<()> {
        if self.is_one_of_many(f) {
            return Ok(());
        }
        let (colour, word) = match f.status {
            Status::Open => ("1;31", "FINDING"),
            Status::Still => ("31", "STILL"),
            Status::Ended => ("32", "ENDED"),
        };
        let width = self.style.width.unwrap_or(usize::MAX);
        let (head, place) = (head(f), place(f));
        let time = time_of_day(clock, f.at);
        let plain = time.len() + " STILL   ".len() + head.chars().count();
        let word = self.paint(colour, &format!("{word:<7}"));
        if plain + 2 + place.chars().count() <= width {
            writeln!(self.out, "{time} {word} {head}  {place}")?;
        } else {
            let mut lines =
                wrap(&head, width.saturating_sub(plain - head.chars().count())).into_iter();
            writeln!(self.out, "{time} {word} {}", lines.next().unwrap_or_default())?;
            let rest = wrap(&place, width.saturating_sub(INDENT));
            for line in lines.chain(rest) {
                writeln!(self.out, "{:INDENT$}{line}", "")?;
            }
        }
        for line in wrap(&advice::summary(f), width.saturating_sub(INDENT)) {
            writeln!(self.out, "{:INDENT$}{line}", "")?;
        }
        let seen = evidence::line(f);
        if f.status == Status::Open && !seen.is_empty() {
            for line in wrap(&format!("seen: {seen}"), width.saturating_sub(INDENT)) {
                writeln!(self.out, "{:INDENT$}{line}", "")?;
            }
        }
        Ok(())
    }

    /// Where one owner has many, the culprit is shown, and each of them only with `--wide`.
    fn is_one_of_many(&mut self, f: &Finding) -> bool {
        let many = !self.style.wide && f.same_owner > WORTH_TELLING;
        if many {
            self.hidden += 1;
        }
        many
    }

    fn culprit(&mut self, clock: &ClockMark, c: &Culprit) -> io::Result<()> {
        if c.count == 1 {
            return Ok(()); // its finding says it all
        }
        let time = time_of_day(clock, c.at);
        let word = self.paint("1;35", "CULPRIT");
        writeln!(self.out, "{time} {word} {} {}", c.count, culprit::title(c))?;
        let width = self.style.width.unwrap_or(usize::MAX).saturating_sub(INDENT);
        for line in wrap(&culprit::ages(c), width) {
            writeln!(self.out, "{:INDENT$}{line}", "")?;
        }
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let (count, total) = (lost.count, lost.total);
        let line = match lost.place {
            _ if count == 0 => {
                "-- something is missing here, it is not known how much --".to_owned()
            }
            Place::Output => {
                let hidden = advice::count(count, "transition");
                format!("-- {hidden} not shown here, as nobody read the output ({total} in all) --")
            }
            Place::Ring | Place::Recording => {
                let lost = advice::count(count, "transition");
                format!("-- {lost} lost here ({total} in all) --")
            }
        };
        let line = self.paint("1;31", &line);
        writeln!(self.out, "{line}")
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl<W: Write> Sink for TextSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(transition) => self.transition(clock, transition),
            Record::Finding(finding) => self.finding(clock, finding),
            Record::Culprit(culprit) => self.culprit(clock, culprit),
            Record::Lost(lost) => self.lost(lost),
            Record::Summary(summary) => {
                write_summary(&mut self.out, summary)?;
                if self.hidden > 0 {
                    writeln!(
                        self.out,
                        "  left out: {} about single findings, as their owner has many; --wide or --json shows them",
                        advice::count(self.hidden, "line")
                    )?;
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Verdict, who, and for how long.
fn head(f: &Finding) -> String {
    let verdict = f.verdict.map_or("unconfirmed", crate::core::finding::Verdict::word);
    let at_least = if f.at_least { ">= " } else { "" };
    let (pid, comm) = owner(&f.socket);
    let who = if pid == "-" { "-".to_owned() } else { format!("{comm}[{pid}]") };
    let fd = f.holders.first().map_or_else(String::new, |h| format!(" fd {}", h.fd));
    format!("{verdict} {who}{fd} {} {at_least}{}", f.state, f.linger)
}

/// Both ends, the role, and how many more there are.
fn place(f: &Finding) -> String {
    let role = f.socket.role.map_or_else(String::new, |role| format!(" {}", role.word()));
    let same = match (f.status, f.same_owner) {
        (_, 0) | (Status::Open | Status::Still, 1) => String::new(),
        (Status::Ended, left) => format!(", {left} of this owner still open"),
        (_, many) => format!(", one of {many} of this owner"),
    };
    let ends = format!("{} {} {}", f.socket.local, advice::arrow(&f.socket), remote(&f.socket));
    format!("{ends}{role}{same}")
}

fn wide(t: &Transition, pid: &str, comm: &str, arrow: &str, remote: &str) -> String {
    let how = t.socket.owner.map_or("-", |owner| owner.how.word());
    let ms =
        t.in_state().map_or_else(|| "-".to_owned(), |span| format!("{:.3}", span.milliseconds()));
    let tcp = |pick: fn(&crate::core::socket::TcpInfo) -> u64| {
        t.socket.tcp.as_ref().map_or_else(|| "-".to_owned(), |tcp| pick(tcp).to_string())
    };
    format!(
        "{pid:<7} {comm:<15} {how:<8} {:<21} {arrow} {remote:<21} {:<11} -> {:<11} {ms:>11} {:>10} {:>6} {:>10} {:>10} {:>8} {:>8} {:>4} {}",
        t.socket.local.to_string(),
        t.old,
        t.new,
        t.socket.netns,
        t.socket.uid,
        tcp(|tcp| tcp.bytes_received),
        tcp(|tcp| tcp.bytes_acked),
        tcp(|tcp| tcp.unread.into()),
        tcp(|tcp| tcp.unsent.into()),
        t.socket.error,
        match t.socket.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Mptcp => "mptcp",
        },
    )
}

fn owner(socket: &Socket) -> (String, String) {
    match socket.owner {
        Some(owner) => (owner.process.pid.to_string(), owner.process.comm.to_string()),
        None => ("-".to_owned(), "-".to_owned()),
    }
}

fn remote(socket: &Socket) -> String {
    if socket.remote.port() == 0 { "*".to_owned() } else { socket.remote.to_string() }
}

#[expect(clippy::cast_precision_loss, reason = "shown with six decimals")]
fn seconds(span: Nanos) -> f64 {
    span.0 as f64 / 1e9
}

/// Milliseconds in at most seven characters while it can be.
fn milliseconds(span: Nanos) -> String {
    let ms = span.milliseconds();
    if ms < 1000.0 { format!("{ms:.3}") } else { format!("{ms:.0}") }
}

fn time_of_day(clock: &ClockMark, at: Timestamp) -> String {
    let zoned = wall(clock, at).to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%H:%M:%S%.3f").to_string()
}

/// Breaks a sentence at spaces.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else if let Some(last) = lines.last_mut() {
            if line > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}
