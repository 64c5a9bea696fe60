//! Goes through the files of a recording and pushes what is in them.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    Play,
    budget::{self, Budget},
    notes,
    pace::{AtSpeed, Pace, Wait},
    window::Window,
};
use crate::{
    core::{
        comm::shown,
        input::{Input, Scope},
        record::Summary,
        time::{Nanos, Timestamp},
    },
    driver::Driver,
    output,
    sink::Sink,
    trace::{
        block::BlockHeader,
        decode::Decoder,
        file::TraceFile,
        reader::{Damage, Next, Reader},
        recording::{Place, Recording},
        series::Series,
    },
};

/// How often a growing file is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long what is due waits for a pass: a recording run looks every ten seconds.
const PATIENCE: Nanos = Nanos(12_000_000_000);
/// Inputs between two looks at whether it is time to stop.
const LOOK_UP: u64 = 4096;
/// Inputs between two looks at how much memory it takes.
const WEIGH: u64 = 8 * LOOK_UP;
/// Lines about damage that are said; more are counted only.
const MOST_TOLD: u64 = 100;

impl Play<'_> {
    /// Pushes a recording through a pipeline with this sink, to its end or until it is time to stop.
    pub fn run(self, recording: &Recording, sink: &mut dyn Sink) -> Result<Summary> {
        let start = match self.range.from {
            Some(from) => recording.place(from)?,
            None => Place::default(),
        };
        let mut pace = AtSpeed::new(self.speed);
        let muted = self.range.from.is_some();
        self.run_from(recording, &start, muted, sink, &mut pace)
    }

    /// The same from a place on, at a pace that may change. Nothing is kept from the sink.
    pub fn run_at(
        self,
        recording: &Recording,
        start: &Place,
        sink: &mut dyn Sink,
        pace: &mut dyn Pace,
    ) -> Result<Summary> {
        self.run_from(recording, start, false, sink, pace)
    }

    fn run_from(
        self,
        recording: &Recording,
        start: &Place,
        muted: bool,
        sink: &mut dyn Sink,
        pace: &mut dyn Pace,
    ) -> Result<Summary> {
        let muted = Cell::new(muted);
        let mut window = Window { sink, muted: &muted };
        let recorded = recording.meta.rules.rules();
        let other_rules = self.rules.linger != recorded.linger
            || self.rules.include_half_open != recorded.include_half_open;
        let mut player = Player {
            pipeline: Driver::new(self.rules.clone(), &mut window),
            muted: &muted,
            play: self,
            pace,
            other_rules,
            wall_offset: 0,
            before: None,
            gap: false,
            unknown: 0,
            budget: Budget::default(),
            pushed: 0,
            told: 0,
            last_file: None,
        };
        if player.play(recording, start)? == Go::Stop && !player.play.partial {
            bail!("stopped before the end of the recording; nothing is shown of it");
        }
        player.do_without_pass(Nanos::default())?;
        Ok(player.pipeline.finish()?)
    }
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

struct Player<'a, 's> {
    pipeline: Driver<'s>,
    muted: &'s Cell<bool>,
    play: Play<'a>,
    pace: &'s mut dyn Pace,
    /// Thresholds are not those of the recording run.
    other_rules: bool,
    /// Wall time less monotonic time of the present block.
    wall_offset: i64,
    /// Transitions of the recording before the next block; `None` before the first.
    before: Option<u64>,
    /// Something is missing here.
    gap: bool,
    /// Records of kinds that this version does not know.
    unknown: u64,
    budget: Budget,
    /// Inputs pushed so far.
    pushed: u64,
    /// Lines said about damage.
    told: u64,
    /// Number of the file that was read last, and whether another goes on.
    last_file: Option<(u32, bool)>,
}

impl Player<'_, '_> {
    fn play(&mut self, recording: &Recording, start: &Place) -> Result<Go> {
        let (first, block) = (start.file, start.block);
        // The first file of a recording has nothing before it.
        let at_start = first == 0 && block.is_none();
        self.before = (at_start && recording.meta.sequence == 1).then_some(0);
        let mut files = recording.files.clone();
        let (mut number, mut go) = (first, Go::On);
        while let Some(file) = files.get(number).cloned() {
            let (mut reader, path) = (file.read()?, file.path());
            self.begin_file(&reader, path);
            if let Some(entry) = block.filter(|_| number == first) {
                reader.go_to(&entry);
            }
            go = self.file(&mut reader, path)?;
            if go == Go::Stop {
                break;
            }
            number += 1;
            if self.play.follow && number == files.len() {
                match self.await_next(path)? {
                    Some(next) => files.push(TraceFile::open(&next)?),
                    None => break,
                }
            }
        }
        if let (Some((number, true)), false) = (self.last_file, self.play.follow) {
            self.say(&format!(
                "the recording goes on after its file {number}, in files that are not here"
            ));
        }
        if self.told > MOST_TOLD {
            let more = self.told - MOST_TOLD;
            self.play.notes.say(&format!("{more} more parts are damaged"));
        }
        if self.unknown > 0 {
            let unknown = self.unknown;
            self.play
                .notes
                .say(&format!("{unknown} records were passed over: a newer tcpwatch wrote them"));
        }
        if let Some(line) = self.budget.left_out() {
            self.play.notes.say(&line);
        }
        self.close_gap(self.pipeline.tracker.now(), None)?;
        // The end of the part that is asked for is no reason to complain.
        Ok(if self.play.stop.is_wanted() { go } else { Go::On })
    }

    fn say(&mut self, line: &str) {
        self.told += 1;
        if self.told <= MOST_TOLD {
            self.play.notes.say(line);
        }
    }

    /// Says if it is not the file that comes next, or does not say what it is.
    fn begin_file(&mut self, reader: &Reader, path: &Path) {
        let Some(meta) = reader.meta() else {
            return self.say(&format!(
                "{}: what the file says of itself cannot be read: findings are told after 30s, and filters of the recording run are not known",
                shown(path)
            ));
        };
        let expected = self.last_file.map_or(meta.sequence, |(number, _)| number + 1);
        if meta.sequence > expected {
            self.say(&format!(
                "{}: file {} of the recording; those from {expected} on are missing",
                shown(path),
                meta.sequence
            ));
        }
        self.last_file = Some((meta.sequence, false));
    }

    fn file(&mut self, reader: &mut Reader, path: &Path) -> Result<Go> {
        let mut position = 0;
        loop {
            self.play.notes.read(reader.position() - position);
            position = reader.position();
            match reader.next_block()? {
                Next::Inputs(header) => {
                    if self.block(&header, reader.payload(), path)? == Go::Stop {
                        return Ok(Go::Stop);
                    }
                }
                Next::Damage(damage) => self.damaged(&damage, path),
                Next::End { before, continued } => {
                    if let Some((_, goes_on)) = &mut self.last_file {
                        *goes_on = continued;
                    }
                    self.say_what_follows(reader, path)?;
                    self.close_gap(self.pipeline.tracker.now(), Some(before))?;
                    return Ok(if continued || !self.play.follow { Go::On } else { Go::Stop });
                }
                Next::Pending { .. } if self.play.follow => {
                    if reader.file_len()? < reader.position() {
                        bail!("{}: the file has become shorter", shown(path));
                    }
                    if self.rest(LOOK_AGAIN)? == Go::Stop {
                        return Ok(Go::Stop);
                    }
                }
                Next::Pending { torn } => {
                    self.say(&notes::unclosed(path, reader.position(), torn));
                    return Ok(Go::On);
                }
            }
            if self.play.stop.is_wanted() {
                return Ok(Go::Stop);
            }
        }
    }

    /// Nothing may follow the end of a file.
    fn say_what_follows(&mut self, reader: &Reader, path: &Path) -> Result<()> {
        let (position, len) = (reader.position(), reader.file_len()?);
        if len > position {
            self.say(&format!(
                "{}: bytes {position} to {len} follow its end and are left out; files that were put together must be given one by one",
                shown(path)
            ));
        }
        Ok(())
    }

    fn damaged(&mut self, damage: &Damage, path: &Path) {
        let Damage { from, to, why, .. } = damage;
        self.say(&format!(
            "{}: bytes {from} to {to} are damaged ({why}) and are left out",
            shown(path)
        ));
        self.gap = true;
        if let (Some(before), Some(header)) = (self.before, damage.header) {
            // Whatever comes next begins after these.
            let last = header.before.get().saturating_add(header.transitions.get().into());
            self.before = Some(before.min(last));
        }
    }

    /// Tells the pipeline what is missing before `before`.
    fn close_gap(&mut self, at: Timestamp, before: Option<u64>) -> Result<()> {
        let known = self.before.or(before).unwrap_or(0);
        let before = before.unwrap_or(known);
        let count = before.saturating_sub(known);
        self.before = Some(before.max(known));
        if std::mem::take(&mut self.gap) || count > 0 {
            self.pipeline.push(Input::Gap { at, count })?;
        }
        Ok(())
    }

    fn block(&mut self, header: &BlockHeader, payload: &[u8], path: &Path) -> Result<Go> {
        let first = Timestamp(header.first_ns.get());
        let missing = self.gap || self.before != Some(header.before.get());
        if let (true, Ok(decoder)) = (missing, Decoder::new(payload)) {
            self.pipeline.push(Input::Clock(decoder.clock()))?;
        }
        self.close_gap(first, Some(header.before.get()))?;
        let offset = header.wall_offset_ns.get();
        self.wall_offset = offset;
        let mono = |wall: Option<u64>| {
            wall.map(|ns| Timestamp(ns.saturating_add_signed(offset.saturating_neg())))
        };
        let part = (mono(self.play.range.from), mono(self.play.range.to));
        let mut transitions = 0;
        let result = Decoder::new(payload).and_then(|mut decoder| {
            let mut go = Ok(Go::On);
            while let (Ok(Go::On), Some(input)) = (&go, decoder.next_input()?) {
                transitions += u64::from(matches!(input, Input::Transition(_)));
                go = self.input(input, part);
            }
            self.unknown += decoder.unknown;
            Ok(go)
        });
        self.before = Some(header.before.get().saturating_add(transitions));
        match result {
            Ok(go) => go,
            Err(error) => {
                self.say(&format!("{}: {error}; the rest of its block is left out", shown(path)));
                self.gap = true;
                Ok(Go::On)
            }
        }
    }

    /// Takes one input, unless it is after the part that is asked for.
    fn input(
        &mut self,
        input: Input,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Go> {
        let at = input.at();
        if to.is_some_and(|to| at > to) {
            return Ok(Go::Stop);
        }
        if let Some(from) = from.filter(|&from| self.muted.get() && at >= from) {
            self.muted.set(false);
            self.pipeline.begin_here(from)?;
        }
        if !self.muted.get() && self.wait_for(at)? == Go::Stop {
            return Ok(Go::Stop);
        }
        let tick = matches!(input, Input::Clock(_));
        if let Some(input) = self.budget.admit(input) {
            self.pipeline.push(input)?;
        }
        if tick {
            self.do_without_pass(PATIENCE)?;
        }
        self.pushed += 1;
        if self.pushed.is_multiple_of(WEIGH) {
            budget::check_memory()?;
        }
        let stop = self.pushed.is_multiple_of(LOOK_UP) && self.play.stop.is_wanted();
        Ok(if stop { Go::Stop } else { Go::On })
    }

    /// With other thresholds something is due for which the recording run may have made no pass: if
    /// none comes in time, it is shown as what it is, not confirmed.
    fn do_without_pass(&mut self, patience: Nanos) -> Result<()> {
        if self.other_rules && self.pipeline.tracker.wants_pass() == Some(Scope::Lingering) {
            self.pipeline.give_up(self.pipeline.tracker.now() - patience)?;
        }
        Ok(())
    }

    /// Waits until it is time for an input.
    fn wait_for(&mut self, at: Timestamp) -> Result<Go> {
        loop {
            match self.pace.due(at, at.0.saturating_add_signed(self.wall_offset)) {
                Wait::Now => return Ok(Go::On),
                Wait::Enough => return Ok(Go::Stop),
                Wait::For(span) => {
                    if self.rest(LOOK_AGAIN.min(span))? == Go::Stop {
                        return Ok(Go::Stop);
                    }
                }
            }
        }
    }

    fn rest(&mut self, span: Duration) -> Result<Go> {
        self.pipeline.flush()?;
        self.pace.rest(span);
        let stop = self.play.stop.is_wanted() || output::reader_is_gone();
        Ok(if stop { Go::Stop } else { Go::On })
    }

    /// The file that the recorder goes on in.
    fn await_next(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        loop {
            // The next may have been removed already, if it was one too many.
            if let Some(next) = Series::after(path)? {
                return Ok(Some(next));
            }
            if Series::has_one_file(path) || self.rest(LOOK_AGAIN)? == Go::Stop {
                return Ok(None);
            }
        }
    }
}
