//! What the scans of a run cannot see: where there is any of it, finding nothing proves nothing.

use std::fmt;

/// A kind of sockets that are not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// What only processes outside this pid namespace hold.
    Processes,
    /// What waits in long accept queues of other network namespaces.
    Queues,
}

impl Unseen {
    /// Every kind, in the order of its declaration, which recordings go by.
    pub const ALL: [Self; 2] = [Self::Processes, Self::Queues];

    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Processes => "other-pid-namespaces",
            Self::Queues => "other-accept-queues",
        }
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => {
                "sockets that only processes outside this pid namespace hold (run tcpwatch in the host's: docker run --pid=host, hostPID: true)"
            }
            Self::Queues => {
                "connections that wait in long accept queues of other network namespaces (it takes CAP_SYS_ADMIN and CAP_SYS_PTRACE, and a process or a name in the namespace)"
            }
        })
    }
}
