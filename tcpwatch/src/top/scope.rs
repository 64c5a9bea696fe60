//! What the filters of the command line leave, in words: a screen that does not show all must say so.

use std::collections::BTreeSet;

use crate::core::filter::Filter;

/// In words; empty if everything is shown.
pub(super) fn words(filter: &Filter) -> String {
    fn list<T: ToString>(what: &str, set: &BTreeSet<T>) -> Option<String> {
        let all: Vec<String> = set.iter().map(T::to_string).collect();
        (!all.is_empty()).then(|| format!("{what} {}", all.join(",")))
    }
    let parts = [
        list("pid", &filter.pids),
        filter.follow.then(|| "descendants".to_owned()),
        list("local port", &filter.local_ports),
        list("remote port", &filter.remote_ports),
        filter.family.map(|family| format!("IPv{family}")),
        list("netns", &filter.netns),
        list("uid", &filter.uids),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!("only {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_says_what_it_leaves() {
        assert_eq!(words(&Filter::default()), "");
        let filter =
            Filter { pids: [7, 8].into(), remote_ports: [5432].into(), ..Filter::default() };
        assert_eq!(words(&filter), "only pid 7,8, remote port 5432");
    }
}
