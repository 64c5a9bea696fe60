//! What a recording holds, as `tcpwatch info` says.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::ledger::number;
use crate::{output, tool::tcpwatch};

/// What `tcpwatch info` says of it.
pub(super) fn info(path: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&output(tcpwatch().args(["info", "-j"]).arg(path))?)?)
}

/// How many transitions a recording has that was closed in order and misses nothing.
pub(super) fn complete(path: &Path) -> Result<u64> {
    let info = info(path)?;
    let whole = info["missing"] == 0 && info["damage"] == json!([]) && info["closed"] == true;
    ensure!(whole && info["lost"] == 0, "the recording is not complete: {info}");
    number(&info["transitions"])
}
