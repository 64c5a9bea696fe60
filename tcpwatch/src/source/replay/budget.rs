//! How much memory a recording may take.
//!
//! Names, facts about processes and details of sockets are shared by all who keep them. Here it is
//! known which of them are still kept, and how large they are; what would be too much is left out and
//! counted. Everything else that a recording can make grow has a limit of its own; as a last resort
//! the memory of the whole process has one.

use std::sync::{Arc, Weak};

use anyhow::{Result, bail};

use crate::{
    core::{
        container::Container,
        detail::TcpDetails,
        input::Input,
        process::{ProcessFacts, Threads},
    },
    kernel::memory,
};

/// Bytes of names, facts and details that may be kept at once: 4,000 for each of 130,000 processes.
const MOST_KEPT: usize = 512 << 20;
/// Not worth a sweep.
const LITTLE: usize = 1 << 20;
/// What an allocation takes beyond its bytes.
const OVERHEAD: usize = 32;
/// Bytes of memory that a process may have that reads recordings. A million sockets that linger fit
/// into it.
const MOST_RESIDENT: u64 = 1 << 30;

/// Something that was handed on, and its size.
struct Kept {
    what: What,
    size: usize,
}

enum What {
    Facts(Weak<ProcessFacts>),
    Details(Weak<TcpDetails>),
    Name(Weak<str>),
}

impl Kept {
    fn is_kept(&self) -> bool {
        0 < match &self.what {
            What::Facts(facts) => facts.strong_count(),
            What::Details(details) => details.strong_count(),
            What::Name(name) => name.strong_count(),
        }
    }
}

/// What of a recording is kept.
#[derive(Default)]
pub(super) struct Budget {
    kept: Vec<Kept>,
    /// Bytes of it, and what they were when it was last looked through.
    bytes: usize,
    swept: usize,
    /// How many have come since.
    since: usize,
    /// Names, facts and details that were left out.
    left_out: u64,
}

impl Budget {
    /// Takes the input, without what there is no room for; `None` if nothing is left of it.
    pub(super) fn admit(&mut self, mut input: Input) -> Option<Input> {
        let kept = match &mut input {
            Input::Observed(seen) => {
                let Some(details) = &seen.details else { return Some(input) };
                if !self.has_room(details_size(details), What::Details(Arc::downgrade(details))) {
                    seen.details = None;
                }
                true
            }
            Input::Process(facts) => {
                self.has_room(facts_size(facts), What::Facts(Arc::downgrade(facts)))
            }
            Input::Namespace { name: Some(name), .. } => {
                self.has_room(name.len(), What::Name(Arc::downgrade(name)))
            }
            _ => true,
        };
        kept.then_some(input)
    }

    /// Says how many were left out, if any.
    pub(super) fn left_out(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "{} names, facts about processes and details of sockets were left out, as they take more than {} MiB of memory",
                self.left_out,
                MOST_KEPT >> 20
            )
        })
    }

    fn has_room(&mut self, size: usize, what: What) -> bool {
        let size = size + OVERHEAD + size_of::<Kept>();
        self.since += 1;
        // What is not kept any more takes no room. To find it must not cost more than to bring it.
        let doubled = self.bytes + size > MOST_KEPT.min(LITTLE + 2 * self.swept);
        if doubled && self.since > self.kept.len() / 2 {
            self.sweep();
        }
        if self.bytes + size > MOST_KEPT {
            self.left_out += 1;
            return false;
        }
        self.bytes += size;
        self.kept.push(Kept { what, size });
        true
    }

    fn sweep(&mut self) {
        self.kept.retain(Kept::is_kept);
        self.bytes = self.kept.iter().map(|kept| kept.size).sum();
        (self.swept, self.since) = (self.bytes, 0);
    }
}

/// Ends a reading that takes too much.
pub(super) fn check_memory() -> Result<()> {
    let is_too_much = || memory::resident().is_some_and(|bytes| bytes > MOST_RESIDENT);
    if is_too_much() {
        memory::give_back();
        if is_too_much() {
            bail!(
                "this recording takes more than {} MiB of memory to read, which no host's does: it is damaged or forged",
                MOST_RESIDENT >> 20
            );
        }
    }
    Ok(())
}

fn facts_size(facts: &ProcessFacts) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + OVERHEAD);
    let container = |container: &Container| {
        let names = container.names.as_ref();
        let names = names
            .map_or(0, |n| n.namespace.len() + n.pod.len() + text(&n.container) + 2 * OVERHEAD);
        container.id.len() + OVERHEAD + text(&container.pod_uid) + names
    };
    let threads = facts.threads.iter().map(|threads| size_of::<Threads>() + text(&threads.wait));
    size_of::<ProcessFacts>()
        + text(&facts.cgroup)
        + facts.container.as_ref().map_or(0, container)
        + threads.sum::<usize>()
}

fn details_size(details: &TcpDetails) -> usize {
    size_of::<TcpDetails>() + OVERHEAD + size_of_val(&details.numbers[..])
}
