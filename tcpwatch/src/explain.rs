//! `tcpwatch explain STATE`: what it means, who is at fault, what to do, and what no longer helps.

use std::{
    fs,
    io::{self, Write as _},
};

use crate::{Outcome, cli::ExplainArgs, core::state::State, exit::Exit, kernel::shed};

/// What there is to know of a state.
struct Explanation {
    means: &'static str,
    fault: &'static str,
    todo: &'static str,
    /// Settings that matter, below `/proc/sys/net/ipv4`, and what they do.
    settings: &'static [(&'static str, &'static str)],
    /// Advice that is wrong or out of date.
    obsolete: &'static [&'static str],
}

/// `tcpwatch explain`.
pub fn command(args: &ExplainArgs) -> Outcome {
    shed::all()?;
    let mut out = io::stdout().lock();
    let told = explain(args.state);
    writeln!(out, "{}\n\n{}", args.state, told.means)?;
    writeln!(out, "\nAt fault: {}", told.fault)?;
    writeln!(out, "What to do: {}", told.todo)?;
    if !told.settings.is_empty() {
        writeln!(out, "\nSettings, with this host's values:")?;
        for (name, does) in told.settings {
            let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
            let value = value.map_or_else(
                |_| "not on this kernel".to_owned(),
                |text| text.split_whitespace().collect::<Vec<_>>().join(" "),
            );
            writeln!(out, "  net.ipv4.{name} = {value}: {does}")?;
        }
    }
    if !told.obsolete.is_empty() {
        writeln!(out, "\nAdvice that does not help:")?;
        for advice in told.obsolete {
            writeln!(out, "  {advice}")?;
        }
    }
    Ok(Exit::Ok)
}

const KEEPALIVE: (&str, &str) =
    ("tcp_keepalive_time", "seconds of silence before a probe, only for sockets with SO_KEEPALIVE");

#[expect(clippy::too_many_lines, reason = "a text per state")]
fn explain(state: State) -> Explanation {
    match state {
        State::CloseWait => Explanation {
            means: "The peer has closed its side and this program has not closed its own. It stays so until the program calls close, for ever if need be.",
            fault: "this program, always",
            todo: "run tcpwatch leaks: its verdict says whether the program never accepted, does not read, read everything but does not close, is blocked writing, or a child has inherited the fd",
            settings: &[KEEPALIVE],
            obsolete: &[
                "No sysctl ends CLOSE_WAIT. tcp_fin_timeout is about FIN_WAIT2, on the other side.",
                "Keepalive ends it only if the peer is gone for good, and the fd stays open even then (dead-fd).",
            ],
        },
        State::TimeWait => Explanation {
            means: "This side closed first. The connection is over; the kernel remembers its addresses for 60 s so that stray segments do not reach a new one. No process and no fd is held, a few hundred bytes of memory are.",
            fault: "nobody; it is normal. Many of them mean many short connections that this side closes",
            todo: "reuse connections (keep-alive, pools), or let the other side close first. It hurts only a client that runs out of local ports to one destination",
            settings: &[
                (
                    "tcp_tw_reuse",
                    "1: a client may reuse such a port for a new outgoing connection; 2: on loopback only",
                ),
                ("ip_local_port_range", "how many local ports there are for each destination"),
                ("tcp_max_tw_buckets", "more than this are dropped at once"),
            ],
            obsolete: &[
                "tcp_tw_recycle is gone since Linux 4.12; it broke clients behind NAT.",
                "tcp_tw_reuse does nothing for servers: it affects outgoing connections only.",
                "tcp_fin_timeout does not shorten TIME_WAIT, which is fixed at 60 s.",
            ],
        },
        State::FinWait2 => Explanation {
            means: "This side has closed and the peer has acknowledged it, but has not closed its own side.",
            fault: "the peer: it has a CLOSE_WAIT",
            todo: "look at the peer with tcpwatch. Once this program has called close, the kernel forgets the connection by itself",
            settings: &[(
                "tcp_fin_timeout",
                "seconds until the kernel forgets a closed connection in this state",
            )],
            obsolete: &[],
        },
        State::FinWait1 => Explanation {
            means: "This side has closed; the peer has not acknowledged that, or what was still to be sent.",
            fault: "the network, or a peer that is gone or does not read",
            todo: "many at once: look for lost packets, or for peers that vanished",
            settings: &[
                ("tcp_orphan_retries", "how often it is tried; 0 means 8"),
                ("tcp_max_orphans", "more than this are reset"),
            ],
            obsolete: &[],
        },
        State::LastAck => Explanation {
            means: "Both sides have closed; the peer has not acknowledged our end.",
            fault: "the network, or a peer that is gone",
            todo: "nothing, unless there are many for long",
            settings: &[("tcp_orphan_retries", "how often it is tried; 0 means 8")],
            obsolete: &[],
        },
        State::Closing => Explanation {
            means: "Both sides closed at the same moment; the acknowledgement is on its way.",
            fault: "nobody",
            todo: "nothing",
            settings: &[],
            obsolete: &[],
        },
        State::SynSent => Explanation {
            means: "This side has asked for a connection and has no answer.",
            fault: "the peer or the way to it: nothing listens there, a firewall drops, or the peer's accept queue is full",
            todo: "check that the peer can be reached; a full accept queue shows there, as a listener with Recv-Q above Send-Q",
            settings: &[("tcp_syn_retries", "how often it is asked again")],
            obsolete: &[],
        },
        State::SynRecv => Explanation {
            means: "A peer has asked for a connection and the handshake is not finished.",
            fault: "nobody; many that stay are a flood, or peers that cannot be reached",
            todo: "see that SYN cookies are on",
            settings: &[
                ("tcp_syncookies", "1: used when the queue is full"),
                ("tcp_max_syn_backlog", "how many may wait"),
            ],
            obsolete: &[],
        },
        State::Established => Explanation {
            means: "The connection is open in both directions.",
            fault: "nobody",
            todo: "nothing; a number that only grows is a leak whose peers have not closed yet",
            settings: &[KEEPALIVE],
            obsolete: &[],
        },
        State::Listen => Explanation {
            means: "A program waits for connections.",
            fault: "nobody",
            todo: "if connections wait in its queue (Recv-Q), the program does not accept them: tcpwatch calls that never-accepted",
            settings: &[(
                "tcp_abort_on_overflow",
                "1: a full queue resets instead of staying silent",
            )],
            obsolete: &[],
        },
        State::Close => Explanation {
            means: "There is no connection: not yet, as between socket and connect, or not any more, after a reset, a time-out or ss -K. A socket that lost its connection and keeps its fd is a leak.",
            fault: "this program, if a socket that lost its connection stays",
            todo: "run tcpwatch leaks: it lists those that were connected and still have an fd (dead-fd), which ss and netstat do not show; not those that were never connected, nor MPTCP sockets",
            settings: &[],
            obsolete: &[],
        },
    }
}
