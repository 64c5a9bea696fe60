//! How the agent's cost grows with the number of connections per second.

use anyhow::Result;

use super::{
    Scale,
    table::{Table, cell},
    tool::Tool,
};
use crate::{
    load::{churn, in_namespace},
    tool::{median, tcpwatch},
};

const PACES: [u32; 4] = [0, 1_000, 5_000, 20_000];
const SECONDS: u32 = 5;
const MODES: [(&str, &[&str]); 3] = [
    ("`tcpwatch -j`", &["-j"]),
    ("`tcpwatch -j -q`", &["-j", "-q"]),
    ("`tcpwatch record`", &["record", "-o"]),
];

/// Measures.
pub(crate) fn run(scale: &Scale) -> Result<Vec<Table>> {
    let mut table = Table {
        title: "Connections per second".to_owned(),
        command: "cargo xtask bench growth",
        about: format!(
            "Per cent of one core that the agent takes while a thread opens and closes so many connections \
             per second, {SECONDS} s each, medians of {} rounds. What the kernel program takes comes on top, and is paid by whoever \
             connects (see *A transition*): ten transitions a connection.",
            scale.rounds.min(3)
        ),
        columns: vec!["idle", "1,000/s", "5,000/s", "20,000/s"],
        rows: Vec::new(),
    };
    for (name, args) in MODES {
        let mut cells = Vec::new();
        for pace in PACES {
            let rounds = (0..scale.rounds.min(3)).map(|_| share(args, pace));
            let shares = rounds.collect::<Result<Vec<_>>>()?;
            cells.push(cell(median(shares), 2));
        }
        table.row(name, cells);
    }
    Ok(vec![table])
}

/// Per cent of a core.
fn share(args: &[&str], pace: u32) -> Result<f64> {
    let mut command = tcpwatch();
    command.args(args);
    let trace = std::env::temp_dir().join("tcpwatch-bench.tcpw");
    if args.contains(&"record") {
        let _ = std::fs::remove_file(&trace);
        command.arg(&trace);
    }
    let tool = Tool::start(command, true)?;
    let before = tool.settled_cpu_ns()?;
    if pace == 0 {
        std::thread::sleep(std::time::Duration::from_secs(SECONDS.into()));
    } else {
        in_namespace(|| churn(pace * SECONDS, Some(pace)))?;
    }
    // What is in the ring or in a buffer is its work too.
    let used = if pace == 0 { tool.cpu_ns()? } else { tool.settled_cpu_ns()? } - before;
    tool.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = used as f64 / 1e7 / f64::from(SECONDS);
    Ok(share)
}
