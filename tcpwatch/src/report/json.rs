//! The report as one JSON object on one line; `model.rs` says what each field means.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a [`super::Report`] or a [`super::diff::Diff`].
pub fn write(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
