//! What tcpwatch keeps of a socket: `examples/tracked_memory.rs` asks the kernel.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::table::{Table, cell};
use crate::{exec, output, root, target_dir};

const STATES: [(&str, &str); 2] = [("established", "open"), ("close-wait", "in CLOSE_WAIT")];
const SOCKETS: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Measures.
pub(crate) fn run() -> Result<Vec<Table>> {
    let build =
        ["build", "--quiet", "--release", "--package", "tcpwatch", "--example", "tracked_memory"];
    exec(Command::new("cargo").current_dir(root()).args(build))?;
    let mut table = Table {
        title: "Memory".to_owned(),
        command: "cargo xtask bench memory",
        about:
            "Bytes per socket of resident memory that a replay of so many connections adds to a \
                pipeline that tracks them all."
                .to_owned(),
        columns: vec!["10,000 sockets", "100,000", "1,000,000"],
        rows: Vec::new(),
    };
    for (state, name) in STATES {
        let cells = SOCKETS.map(|sockets| bytes(sockets, state).map(|bytes| cell(bytes, 0)));
        table.row(name, cells.into_iter().collect::<Result<_>>()?);
    }
    Ok(vec![table])
}

fn bytes(sockets: u32, state: &str) -> Result<f64> {
    let text = output(
        Command::new(target_dir().join("release/examples/tracked_memory"))
            .args([&sockets.to_string(), state]),
    )?;
    let bytes = text.trim().rsplit_once(": ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(bytes.with_context(|| format!("read {text}"))?.parse()?)
}
