//! `cargo xtask screenshots`: the pictures in the documents, made anew from a committed trace.
//!
//! Of the page of a report in both colour schemes, and of anything that a terminal shows: a file of
//! text with colours becomes a picture by way of a page, too. Nothing is left out silently: what
//! cannot be drawn is an error.

mod ansi;
#[path = "../../tcpwatch/tests/page/browser.rs"]
#[expect(dead_code, reason = "the tests of the page need more of it")]
mod browser;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use self::browser::Browser;
use crate::{exec, output, root, target_dir};

/// What the pictures are of.
const TRACE: &str = "tcpwatch/tests/traces/shop.tcpw";
/// Where they go.
const IMAGES: &str = "docs/images";
/// Bytes of a picture at most: everybody who clones the tree gets them.
const LARGEST: usize = 150_000;
/// How much of the page is in the picture, CSS pixels, and how small.
const PAGE: [u32; 2] = [1120, 1305];
const SCALE: f64 = 0.72;

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Draw what a terminal shows, too: FILE is text with colours, the picture is docs/images/NAME.png
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    terminal: Vec<(String, PathBuf)>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write NAME=FILE")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("'{name}' is no name for a picture: letters, digits and - only"));
    }
    Ok((name.to_owned(), PathBuf::from(file)))
}

/// Makes the pictures.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !browser::is_installed() {
        bail!("there is no chromium (Debian package chromium; .ci/setup installs it)");
    }
    let work = target_dir().join("screenshots");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let mut browser = Browser::start(&work.join("profile"))?;
    page(&mut browser, &work)?;
    screen(&mut browser, &work)?;
    for (name, file) in &args.terminal {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        terminal(&mut browser, &work, name, &text)
            .with_context(|| format!("draw {}", file.display()))?;
    }
    Ok(())
}

/// The page of a report, in both colour schemes.
fn page(browser: &mut Browser, work: &Path) -> Result<()> {
    let html = work.join("report.html");
    let run = ["run", "--quiet", "--package", "tcpwatch", "--", "report", TRACE, "--html"];
    exec(Command::new("cargo").args(run).arg(&html).current_dir(root()))?;
    let [width, height] = PAGE;
    browser.size(width, height, 1.0)?;
    for (scheme, name) in [("light", "report"), ("dark", "report-dark")] {
        browser.prefer(scheme)?;
        browser.open(&html)?;
        keep(name, &browser.picture([0.0, 0.0, width.into(), height.into()], SCALE)?)?;
    }
    Ok(())
}

/// The screen on the same recording, when most is open.
fn screen(browser: &mut Browser, work: &Path) -> Result<()> {
    let run = ["run", "--quiet", "--package", "tcpwatch", "--", "top", "--replay", TRACE];
    let frame = ["--at", "00:41:29", "--frame", "100x24"];
    let mut command = Command::new("cargo");
    command.args(run).args(frame).env("TZ", "UTC").env_remove("NO_COLOR").current_dir(root());
    terminal(browser, work, "top", output(&mut command)?.as_bytes())
}

/// What a terminal shows.
fn terminal(browser: &mut Browser, work: &Path, name: &str, text: &[u8]) -> Result<()> {
    let html = work.join(format!("{name}.html"));
    fs::write(&html, ansi::page(text)?)?;
    browser.size(1600, 1200, 1.0)?;
    browser.open(&html)?;
    let place = browser.place("pre")?;
    keep(name, &browser.picture(place, 1.0)?)
}

fn keep(name: &str, picture: &[u8]) -> Result<()> {
    if picture.len() > LARGEST {
        bail!("the picture {name} has {} bytes, more than {LARGEST}: show less", picture.len());
    }
    let path = root().join(IMAGES).join(format!("{name}.png"));
    fs::create_dir_all(root().join(IMAGES))?;
    fs::write(&path, picture).with_context(|| format!("write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), picture.len());
    Ok(())
}
