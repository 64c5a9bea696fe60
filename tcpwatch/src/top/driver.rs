//! The thread that shows the screen: waits for keys, takes snapshots, draws.
//!
//! It draws when a key was pressed and four times a second, and less often where a drawing takes long:
//! they are rationed as passes are, so that drawing never takes more than a twentieth of a core.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use jiff::tz::TimeZone;
use ratatui::crossterm::event;

use super::{
    app::{Action, App},
    around::{Around, Costs, Note, Play, Playing, Tape},
    keys,
    messages::Messages,
    model::Model,
    save,
    screen::Screen,
    snapshot::Snapshot,
    view::{self, Look},
};
use crate::{
    core::{
        comm::shown,
        record::{Census, Record},
        time::{ClockMark, Nanos, Timestamp},
        unseen::Unseen,
    },
    kernel::clock,
    report::words::grouped,
    sink::Sink,
};

/// The time between two drawings,
const DRAW_EVERY: Nanos = Nanos(250_000_000);
/// and at least this many times what the last took.
const REST_AFTER_DRAWING: u64 = 20;
/// How long it takes at most until it is noticed that the run ends.
const NOTICE: Duration = Duration::from_millis(100);
/// How long a note is shown.
const NOTE_FOR: Nanos = Nanos(8_000_000_000);

/// The model, as the pipeline feeds it and the screen looks at it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Model>>);

impl Shared {
    /// Of this model.
    pub fn new(model: Model) -> Self {
        Self(Arc::new(Mutex::new(model)))
    }

    /// Nobody else uses it meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Shared {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.lock().record(clock, record)
    }

    fn census(&mut self, clock: &ClockMark, census: &Census) -> io::Result<()> {
        self.lock().census(clock, census)
    }
}

/// What is behind the screen: a run, or a recording that is played.
pub trait Stage: Send {
    /// What watching costs now.
    fn costs(&mut self) -> Costs {
        Costs::default()
    }

    /// The recording that is made beside it.
    fn tape(&self) -> Option<Tape> {
        None
    }

    /// How far a recording has been played.
    fn play(&self) -> Option<Play> {
        None
    }

    /// Does what only a recording that is played can do.
    fn act(&mut self, _action: &Action) {}
}

/// What the screen says of whom it shows.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The host.
    pub host: String,
    /// What filters leave.
    pub scope: String,
    /// What scans do not see.
    pub unseen: Option<Unseen>,
    /// What lingers for this long is a finding.
    pub linger: Nanos,
    /// Colours or none.
    pub colour: bool,
}

/// Everything that the thread has in hand.
pub struct Driver {
    screen: Screen,
    shared: Shared,
    /// The model as it was when the display was told to stand still.
    frozen: Option<Model>,
    app: App,
    about: About,
    zone: TimeZone,
    stage: Box<dyn Stage>,
    messages: Messages,
    snapshot: Snapshot,
    costs: Costs,
    note: Option<Shown>,
    heard: u64,
}

struct Shown {
    text: String,
    bad: bool,
    until: Timestamp,
}

/// The thread.
pub struct Running {
    thread: JoinHandle<Result<()>>,
    over: Arc<AtomicBool>,
}

impl Running {
    /// Ends it; the terminal is given back then.
    pub fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the screen failed, for the reason given above"))?
    }
}

/// Rings however the thread ends.
struct Ringing(Sender<()>);

impl Drop for Ringing {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Driver {
    /// Opens the screen.
    pub fn open(shared: Shared, app: App, about: About, stage: Box<dyn Stage>) -> Result<Self> {
        let messages = Messages::default();
        let snapshot = shared.lock().snapshot(&app.query());
        Ok(Self {
            screen: Screen::open(&messages)?,
            shared,
            frozen: None,
            app,
            about,
            zone: TimeZone::system(),
            stage,
            messages,
            snapshot,
            costs: Costs::default(),
            note: None,
            heard: 0,
        })
    }

    /// Shows it on a thread of its own, until `over` is raised; rings the alarm when it ends by itself.
    pub fn start(mut self, over: Arc<AtomicBool>, alarm: Sender<()>) -> Result<Running> {
        let raised = Arc::clone(&over);
        let thread = thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let _ringing = Ringing(alarm);
            self.run(&raised)
        });
        Ok(Running { thread: thread.context("start a thread")?, over })
    }

    fn run(&mut self, over: &AtomicBool) -> Result<()> {
        let mut next = clock::now();
        while !over.load(Ordering::Acquire) {
            let wait = Duration::from_nanos(next.since(clock::now()).0).min(NOTICE);
            let pressed = event::poll(wait).context("wait for keys")?;
            if pressed && self.take_keys()? {
                return Ok(());
            }
            let begun = clock::now();
            if pressed || begun >= next {
                self.draw().context("draw on the terminal")?;
                let now = clock::now();
                let rest = Nanos(now.since(begun).0.saturating_mul(REST_AFTER_DRAWING));
                next = now + rest.max(DRAW_EVERY);
            }
        }
        Ok(())
    }

    /// Takes everything that was typed; says whether to end.
    fn take_keys(&mut self) -> Result<bool> {
        while event::poll(Duration::ZERO).context("wait for keys")? {
            let event = event::read().context("read keys")?;
            let Some(key) = keys::of_event(&event) else { continue };
            let before = (self.app.place(), self.app.sort, self.app.filter().to_owned());
            let action = self.app.key(key, &self.snapshot);
            match action {
                Some(Action::Quit) => return Ok(true),
                Some(action) => self.act(&action)?,
                None => {}
            }
            // The next key may be about what this one has led to.
            if before != (self.app.place(), self.app.sort, self.app.filter().to_owned()) {
                self.take_snapshot();
            }
        }
        Ok(false)
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Redraw => self.screen.clear().context("draw on the terminal")?,
            Action::Freeze(true) => self.frozen = Some(self.shared.lock().frozen()),
            Action::Freeze(false) => self.frozen = None,
            Action::Save(path) => {
                let query = self.app.query();
                let (findings, clock, now) =
                    self.with_model(|model| (model.listed(&query), *model.clock(), model.now()));
                let (text, bad) = match save::write(path, &findings, &clock, now) {
                    Ok(path) => {
                        let written = match findings.len() {
                            1 => "1 finding is".to_owned(),
                            count => format!("{} findings are", grouped(count as u64)),
                        };
                        (format!("{written} in {}", shown(&path)), false)
                    }
                    Err(error) => (format!("nothing was written: {error:#}"), true),
                };
                self.say(text, bad);
            }
            other => self.stage.act(other),
        }
        Ok(())
    }

    fn say(&mut self, text: String, bad: bool) {
        self.note = Some(Shown { text, bad, until: clock::now() + NOTE_FOR });
    }

    fn with_model<T>(&mut self, what: impl FnOnce(&mut Model) -> T) -> T {
        match &mut self.frozen {
            Some(frozen) => what(frozen),
            None => what(&mut self.shared.lock()),
        }
    }

    fn take_snapshot(&mut self) {
        let (query, sort) = (self.app.query(), self.app.sort);
        self.snapshot = self.with_model(|model| {
            model.groups.sort_by(sort);
            model.snapshot(&query)
        });
    }

    fn draw(&mut self) -> io::Result<()> {
        let play = self.stage.play();
        // What is on its way to another place is not worth seeing.
        if play.as_ref().is_none_or(|play| play.playing != Playing::Seeking) {
            self.take_snapshot();
        }
        let (messages, said) = self.messages.all();
        if said > self.heard
            && let Some(last) = messages.last()
        {
            self.say(last.clone(), true);
            self.heard = said;
        }
        let now = clock::now();
        self.note.take_if(|note| note.until < now);
        if self.frozen.is_none() {
            self.costs = self.stage.costs();
        }
        let around = Around {
            look: Look { colour: self.about.colour },
            zone: self.zone.clone(),
            host: &self.about.host,
            scope: &self.about.scope,
            unseen: self.about.unseen,
            linger: self.about.linger,
            costs: self.costs,
            tape: self.stage.tape(),
            play: play.as_ref(),
            messages: &messages,
            note: self.note.as_ref().map(|note| Note { text: &note.text, bad: note.bad }),
        };
        let (snapshot, app) = (&self.snapshot, &mut self.app);
        let (visible, lines) = view::extent(self.screen.area()?, snapshot, app, &around);
        app.settle(snapshot, visible, lines);
        self.screen.draw(|frame| view::draw(frame, snapshot, app, &around))
    }
}
