//! A copy of a recording in which the wall clock was set back half-way, as by a time server or by hand.
//!
//! ```sh
//! cargo run --release --example set_clock_back -- FILE COPY SECONDS
//! ```
//!
//! Nothing else differs: what tcpwatch concludes must not depend on it (`cargo xtask faults clock-back`).

use std::{env, path::Path};

use anyhow::{Context as _, Result, bail};
use tcpwatch::{
    core::{input::Input, time::ClockMark},
    trace::{
        decode::Decoder,
        encode::Encoder,
        pack::LEVEL,
        reader::{Next, Reader},
        writer::Writer,
    },
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [from, to, seconds] = &arguments[..] else { bail!("which FILE, COPY and SECONDS?") };
    copy(Path::new(from), Path::new(to), seconds.parse().context("SECONDS is a number")?)
}

/// Copies block by block, so that the copy can be read from the same places.
fn copy(from: &Path, to: &Path, seconds: u64) -> Result<()> {
    let mut reader = Reader::open(from)?;
    let middle = middle(from)?;
    let back = |mark: ClockMark| {
        let ns = if mark.mono.0 < middle { 0 } else { seconds * 1_000_000_000 };
        ClockMark { real_ns: mark.real_ns.saturating_sub(ns), ..mark }
    };
    let meta = reader.meta().context("the file says nothing of itself")?.clone();
    let mut writer = Writer::create(to, &meta, LEVEL)?;
    let (mut encoder, mut before) = (None, 0);
    loop {
        match reader.next_block()? {
            Next::Inputs(_) => {
                let mut decoder = Decoder::new(reader.payload())?;
                let encoder = encoder.get_or_insert_with(|| Encoder::new(back(decoder.clock())));
                while let Some(input) = decoder.next_input()? {
                    encoder.push(&match input {
                        Input::Clock(mark) => Input::Clock(back(mark)),
                        other => other,
                    });
                }
                let sealed = encoder.seal(Vec::new());
                writer.write(&sealed)?;
                before += u64::from(sealed.header.transitions.get());
            }
            Next::Damage(damage) => bail!("the recording is damaged: {}", damage.why),
            Next::End { .. } | Next::Pending { .. } => break,
        }
    }
    Ok(writer.close(before, false)?)
}

/// The monotonic time half-way.
fn middle(path: &Path) -> Result<u64> {
    let entries = Reader::open(path)?.entries()?;
    let (first, last) = entries.first().zip(entries.last()).context("the recording is empty")?;
    Ok(first.first_ns + (last.last_ns - first.first_ns) / 2)
}
