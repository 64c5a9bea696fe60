//! The third screen: all there is to say of one socket.

use jiff::tz::TimeZone;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Look, sockets::unread, text, time_of_day, words};
use crate::{
    core::{
        advice::{self, arrow},
        evidence,
        finding::{Finding, Status, Verdict},
        socket::{Protocol, Role},
        time::Timestamp,
    },
    report::words::{duration, grouped, plural},
    top::{
        around::Around,
        snapshot::{Header, Story},
    },
};

/// Columns of a label.
const LABEL: usize = 12;

pub(super) fn draw_title(buffer: &mut Buffer, area: Rect, story: Option<&Story>, look: Look) {
    let Some(story) = story else { return };
    let finding = &story.finding;
    let socket = &finding.socket;
    let owner = socket.owner.map_or_else(|| "nobody known".to_owned(), |o| o.process.to_string());
    let fd =
        finding.holders.first().map_or_else(String::new, |holder| format!(" fd {}", holder.fd));
    let line = format!("{owner}{fd}: {} {} {}", socket.local, arrow(socket), socket.remote);
    text(buffer, area, &words::cut(&line, area.width.into()), look.dim());
}

/// The story, broken into lines of this width.
pub(super) fn lines(
    story: Option<&Story>,
    header: &Header,
    around: &Around<'_>,
    width: u16,
) -> Vec<Line<'static>> {
    let look = around.look;
    let Some(story) = story else {
        return vec![Line::styled(
            "Nothing is known of this socket any more. Esc goes back.",
            look.plain(),
        )];
    };
    let finding = &story.finding;
    let mut page = Page { lines: Vec::new(), width: width.into(), look };
    page.headline(finding, story.same);
    page.blank();
    page.path(story, header, &around.zone);
    page.blank();
    page.part("why", look.plain(), &advice::summary(finding));
    if finding.ending.is_none() {
        page.part("to do", look.good(), advice::remedy(finding.verdict));
    }
    page.part("seen", look.plain(), &evidence::line(finding));
    page.blank();
    page.held_by(finding);
    page.counters(finding);
    page.identity(finding);
    if finding.ending.is_none() {
        let ago = header.now.since(story.looked);
        page.part("looked at", look.dim(), &format!("{ago} ago"));
    }
    page.lines
}

struct Page {
    lines: Vec<Line<'static>>,
    width: usize,
    look: Look,
}

impl Page {
    fn blank(&mut self) {
        self.lines.push(Line::default());
    }

    /// A label and what it is of; nothing is said of nothing.
    fn part(&mut self, label: &'static str, style: Style, text: &str) {
        if text.is_empty() {
            return;
        }
        let indent = if self.width > 3 * LABEL { LABEL } else { 0 };
        let mut label = Some(label);
        for line in words::wrap(text, self.width.saturating_sub(indent)) {
            let label = label.take().filter(|_| indent > 0).unwrap_or_default();
            self.lines.push(Line::from(vec![
                Span::styled(format!("{label:indent$}"), self.look.dim()),
                Span::styled(line, style),
            ]));
        }
    }

    fn headline(&mut self, finding: &Finding, same: usize) {
        let look = self.look;
        let verdict = finding.verdict.map_or("unconfirmed", Verdict::word);
        let age = words::age(finding.linger, finding.at_least);
        let over = finding.status == Status::Ended;
        let style = if over { look.good() } else { look.bad() };
        let mut words = vec![
            Span::styled(verdict, style),
            Span::raw("  "),
            Span::styled(finding.state.name(), look.warn()),
            Span::raw(if over { " lasted " } else { " for " }),
            Span::styled(age, look.strong()),
        ];
        if over {
            words.push(Span::styled("  ENDED", look.good()));
        }
        if same > 1 {
            let same = grouped(same as u64);
            words.push(Span::styled(format!("  one of {same} of this culprit"), look.dim()));
        }
        self.lines.push(Line::from(words));
    }

    /// Each state, since when, and for how long.
    fn path(&mut self, story: &Story, header: &Header, zone: &TimeZone) {
        let look = self.look;
        let over = story.finding.ending.is_some();
        let now = if over { story.finding.at } else { header.now };
        let time = |at: Timestamp| time_of_day(header.clock.wall_ns(at), zone, "%H:%M:%S%.3f");
        let steps: Vec<_> = story.path.dwells(now).collect();
        for (number, (step, dwell)) in steps.iter().enumerate() {
            let since = step.since.map_or_else(|| "before".to_owned(), time);
            let last = number + 1 == steps.len();
            let dwell = match dwell {
                Some(dwell) => duration(dwell.0),
                None if last => words::age(story.finding.linger, story.finding.at_least),
                None => String::new(),
            };
            let style = if last && !over { look.warn() } else { look.plain() };
            self.lines.push(Line::from(vec![
                Span::styled(format!("{:LABEL$}", step.state.name()), style),
                Span::styled(format!("{since:<14}"), look.dim()),
                Span::styled(format!("{dwell:>8}"), style),
            ]));
        }
    }

    fn held_by(&mut self, finding: &Finding) {
        const NAMED: usize = 16;
        let look = self.look;
        if finding.holders.is_empty() {
            self.part("held by", look.plain(), "nobody: it has no descriptor");
        }
        for (number, holder) in finding.holders.iter().take(NAMED).enumerate() {
            let label = if number == 0 { "held by" } else { "" };
            self.part(label, look.strong(), &format!("{} fd {}", holder.process, holder.fd));
        }
        if let Some(more @ 1..) = finding.holders.len().checked_sub(NAMED) {
            self.part("", look.plain(), &format!("and {more} more"));
        }
        if let Some(listener) = &finding.listener {
            let queue = match listener.queue_limit {
                0 => String::new(),
                limit => format!(", {} of {limit} wait in its queue", listener.queue_len),
            };
            let holders = advice::names(&listener.holders);
            let text = format!("{} held by {holders}{queue}", listener.local);
            self.part("listener", look.plain(), &text);
        }
    }

    fn counters(&mut self, finding: &Finding) {
        let look = self.look;
        let Some(tcp) = finding.socket.tcp else { return };
        let unread = unread(finding).unwrap_or_default();
        let style = if unread == "0" { look.plain() } else { look.warn() };
        let unread = match &unread[..] {
            "FIN" => "the FIN alone: nobody has noticed that the peer closed".to_owned(),
            "0" => "nothing".to_owned(),
            "1" => "1 byte".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        self.part("unread", style, &unread);
        let unsent = match tcp.unsent {
            0 => ("nothing".to_owned(), look.plain()),
            bytes => (plural(bytes.into(), "byte"), look.warn()),
        };
        self.part("unsent", unsent.1, &unsent.0);
        let mut parts =
            vec![format!("{} in, {} out", grouped(tcp.bytes_received), grouped(tcp.bytes_acked))];
        if tcp.srtt_us > 0 {
            parts.push(format!("round trip {}", duration(u64::from(tcp.srtt_us) * 1000)));
        }
        if tcp.retransmits > 0 {
            parts.push(advice::count(tcp.retransmits.into(), "retransmission"));
        }
        self.part("bytes", look.plain(), &parts.join("; "));
    }

    fn identity(&mut self, finding: &Finding) {
        let look = self.look;
        let socket = &finding.socket;
        let role = match socket.role {
            Some(Role::Client) => "client: this side connected",
            Some(Role::Server) => "server: the peer connected",
            None => "not known",
        };
        self.part("role", look.plain(), role);
        if let Some(opener) = finding.evidence.opener {
            self.part("opened by", look.plain(), &opener.to_string());
        }
        if let Some(process) = finding.evidence.process.as_deref() {
            self.part("cgroup", look.plain(), process.cgroup.as_deref().unwrap_or_default());
        }
        let mut parts = Vec::new();
        if socket.protocol == Protocol::Mptcp {
            parts.push("mptcp".to_owned());
        }
        let name =
            finding.netns_name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
        parts.push(format!("netns {}{name}", socket.netns));
        parts.push(format!("uid {}", socket.uid));
        parts.extend(socket.cookie.map(|cookie| format!("cookie {cookie}")));
        parts.extend(socket.inode.map(|inode| format!("inode {inode}")));
        if socket.uncertain {
            parts.push("some of its changes were lost".to_owned());
        }
        self.part("socket", look.plain(), &parts.join(", "));
    }
}
