//! Whether this kernel preempts a task while it runs a program of ours.

use std::fs;

/// The modes of a kernel that has several, as in `none voluntary (full) lazy`
/// (`kernel/sched/debug.c: sched_dynamic_show`). Root may read it where debugfs is mounted.
const MODES: &str = "/sys/kernel/debug/sched/preempt";

/// Whether it is known to do so. `false` also if nobody knows; what happens then tells.
pub fn is_known_to_be_on() -> bool {
    match fs::read_to_string(MODES) {
        Ok(modes) => preempts(&modes),
        Err(_) => {
            fs::read_to_string("/proc/sys/kernel/version").is_ok_and(|text| is_built_in(&text))
        }
    }
}

fn preempts(modes: &str) -> bool {
    modes.split_whitespace().any(|mode| ["(full)", "(lazy)"].contains(&mode))
}

/// A kernel that has one mode says so in its version (`init/Makefile`); `PREEMPT_DYNAMIC` has several.
fn is_built_in(version: &str) -> bool {
    version.split_whitespace().any(|word| ["PREEMPT", "PREEMPT_RT", "PREEMPT_LAZY"].contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_parentheses_counts() {
        assert!(preempts("none voluntary (full) lazy \n"));
        assert!(preempts("full (lazy) \n"));
        assert!(!preempts("none (voluntary) full \n"));
        assert!(!preempts("(none) voluntary full lazy \n"));
    }

    #[test]
    fn a_version_tells_of_one_mode_only() {
        assert!(is_built_in("#1 SMP PREEMPT_RT Debian 6.12.9-1 (2025-01-10)\n"));
        assert!(is_built_in("#1 SMP PREEMPT Tue Jan 7\n"));
        assert!(!is_built_in("#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1 (2025-01-10)\n"));
        assert!(!is_built_in("#1 SMP Tue Jan 7\n"));
    }
}
