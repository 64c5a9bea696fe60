//! Transitions that were lost, by what lost them.

/// Transitions that were lost.
#[derive(Clone, Copy, Default)]
pub struct Lost {
    /// The ring was full.
    pub full: u64,
    /// The kernel had no memory for what is remembered of their sockets.
    pub no_memory: u64,
    /// No program was run for them, whoever's sockets they were of; or it shows in the path of a socket that
    /// the filters concern that none was.
    pub unseen: u64,
    /// Their records made no sense.
    pub undecodable: u64,
}

impl Lost {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.full + self.no_memory + self.unseen + self.undecodable
    }

    /// How many more than `before` were lost in each way, and what helps against it.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = (u64, &'static str)> {
        let ways = [
            (self.full, before.full, "the ring buffer was full; a larger --ring-size may help"),
            (
                self.no_memory,
                before.no_memory,
                "the kernel had no memory for data about their sockets; a larger net.core.optmem_max in their network namespace may help",
            ),
            (
                self.unseen,
                before.unseen,
                "the kernel did not run the program for them; the next scan finds what they changed",
            ),
            (self.undecodable, before.undecodable, "their records made no sense"),
        ];
        ways.into_iter()
            .map(|(now, before, why)| (now.saturating_sub(before), why))
            .filter(|(count, _)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_advice() {
        let before = Lost { full: 3, no_memory: 1, unseen: 0, undecodable: 2 };
        let now = Lost { full: 3, no_memory: 5, unseen: 2, undecodable: 2 };
        let told: Vec<_> = now.since(&before).collect();
        assert_eq!(told.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [4, 2]);
        assert!(told[0].1.contains("optmem_max"), "{told:?}");
        assert!(told.iter().all(|(_, why)| !why.contains("--ring-size")), "{told:?}");
        let full = Lost { full: 4, ..before };
        assert!(
            full.since(&before)
                .next()
                .is_some_and(|(count, why)| count == 1 && why.contains("--ring-size"))
        );
        assert_eq!(now.total() - before.total(), 6);
    }
}
