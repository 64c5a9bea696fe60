//! `tcpwatch report --html`: a recording into a page.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use super::{Part, Source, write};
use crate::{
    Outcome,
    cli::ReportArgs,
    core::{comm, tracker::Rules},
    exit::Exit,
    export::newfile::{NewFile, is_replaceable},
    info::asked_for,
    report::{Collector, Report, command::collect},
    source::replay::{self, Bar},
    stop::Stop,
    trace::{
        meta::RecordedRules,
        recording::{Range, Recording},
    },
};

/// Writes the page of a recording to a new file.
pub fn command(args: &ReportArgs, to: &Path, recordings: &[Recording]) -> Outcome {
    let [recording] = recordings else {
        bail!("these are {} recordings, and a page is of one: make one of each", recordings.len());
    };
    let name = || format!("write {}", comm::shown(to));
    let target = Target::of(to).with_context(name)?;
    let mut stop = Stop::on_signal()?;
    let range = recording.range(args.trace.from, args.trace.until)?;
    let rules = replay::rules(&args.trace.rules, recording)?;
    let source = source(recording, &rules, range)?;
    let mut collector = Collector::for_page(rules.linger);
    let mut report = {
        let mut bar = Bar::new(recordings);
        collect(&mut collector, rules, recording, range, &mut stop, &mut bar)?
    };
    name_files(&mut report, recording);
    let mut page = Vec::new();
    write(&mut page, &source, &report, &collector.listed())?;
    target.write(&page).with_context(name)?;
    let leaks = report.culprits.iter().any(|culprit| culprit.leaks() > 0);
    Ok(if args.fail_on_leak && leaks { Exit::Findings } else { Exit::Ok })
}

/// Notes call files by their names: where they lay says nothing to who reads the page elsewhere.
fn name_files(report: &mut Report, recording: &Recording) {
    for file in &recording.files {
        let (path, name) = (comm::shown(file.path()), file_name(file.path()));
        for note in &mut report.incomplete.notes {
            *note = note.replace(&path, &name);
        }
    }
}

fn file_name(path: &Path) -> String {
    comm::tame(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Where the page goes.
enum Target {
    Stdout,
    /// What is no file: a pipe, a device, or a link to one.
    Stream(File),
    /// Boxed: it is larger than the others.
    New(Box<NewFile>),
}

impl Target {
    /// Before anything is read, as a recording may take a while.
    fn of(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        // Also through a link.
        if fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            bail!(
                "it is there already, and nothing is overwritten: remove it, or choose another name"
            );
        }
        if !is_replaceable(path) {
            return Ok(Self::Stream(File::options().write(true).open(path)?));
        }
        Ok(Self::New(Box::new(NewFile::create(path)?)))
    }

    fn write(self, page: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = BufWriter::new(io::stdout().lock());
                out.write_all(page)?;
                out.flush()
            }
            Self::Stream(mut file) => file.write_all(page),
            Self::New(mut file) => {
                file.write_all(page)?;
                file.commit_new()
            }
        }
    }
}

fn source(recording: &Recording, rules: &Rules, range: Range) -> Result<Source> {
    let meta = &recording.meta;
    let now = RecordedRules::from(rules);
    let files = recording.files.iter().map(|file| {
        let path = file.path();
        let bytes = file.len().with_context(|| format!("read {}", comm::shown(path)))?;
        Ok(Part { name: file_name(path), bytes })
    });
    Ok(Source {
        host: meta.host.clone(),
        kernel: meta.kernel.clone(),
        machine: meta.machine.clone(),
        recorded_by: meta.tool.clone(),
        reported_by: env!("CARGO_PKG_VERSION").to_owned(),
        recording: meta.recording.clone(),
        boot: meta.boot_id.clone(),
        files: files.collect::<Result<_>>()?,
        asked: asked_for(&meta.rules),
        asked_now: (now != meta.rules).then(|| asked_for(&now)),
        is_part: range != Range::default(),
    })
}
