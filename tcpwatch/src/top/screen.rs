//! The terminal: taken over when the screen opens, given back however the process ends.
//!
//! At the end, on an error, on a signal (the run is told to stop, and the screen closes first of all), on
//! a panic of any thread, and when nobody takes the output any more (`stop::at_least`).

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ratatui::{
    Terminal,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    prelude::CrosstermBackend,
};

use super::messages::{Diversion, Messages};
use crate::stop;

/// A drawing is written at once, if it is no larger than this.
const BUFFER: usize = 64 << 10;

type Backend = CrosstermBackend<BufWriter<File>>;

/// Fails if a screen cannot be shown here.
pub fn require() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!(
            "top needs a terminal, and standard output is none; without one: tcpwatch -q, or tcpwatch leaks"
        );
    }
    if std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty()) {
        bail!(
            "top cannot draw on this terminal (TERM is dumb or not set); tcpwatch -q writes lines"
        );
    }
    Ok(())
}

/// The terminal while it is ours.
pub struct Screen {
    terminal: Terminal<Backend>,
    taken: Arc<Taken>,
}

/// What must be given back.
struct Taken {
    given_back: AtomicBool,
    drawing: Mutex<()>,
    diversion: Diversion,
}

impl Screen {
    /// Takes the terminal over; what is said on standard error goes to `messages`.
    pub fn open(messages: &Messages) -> Result<Self> {
        let out: File =
            io::stdout().as_fd().try_clone_to_owned().context("open the terminal")?.into();
        let backend = CrosstermBackend::new(BufWriter::with_capacity(BUFFER, out));
        let diversion = Diversion::begin(messages).context("take standard error over")?;
        let taken = Arc::new(Taken {
            given_back: AtomicBool::new(false),
            drawing: Mutex::new(()),
            diversion,
        });
        // From here on dropping it gives the terminal back.
        let screen = Self { terminal: Terminal::new(backend).context("ask the terminal")?, taken };
        stop::at_least(|| {
            let _ = disable_raw_mode();
        });
        screen.taken.give_back_on_panic();
        enable_raw_mode().context("take the terminal over")?;
        execute!(io::stdout(), EnterAlternateScreen, Hide).context("draw on the terminal")?;
        Ok(screen)
    }

    /// The columns and rows there are now.
    pub fn area(&self) -> io::Result<ratatui::layout::Rect> {
        let size = self.terminal.size()?;
        Ok(ratatui::layout::Rect::new(0, 0, size.width, size.height))
    }

    /// Draws, unless the terminal has been given back.
    pub fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        let taken = Arc::clone(&self.taken);
        let _drawing = taken.drawing.lock();
        if !taken.given_back.load(Ordering::Acquire) {
            self.terminal.draw(draw)?;
        }
        Ok(())
    }

    /// Has everything drawn anew.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.taken.give_back();
        self.taken.diversion.end();
    }
}

impl Taken {
    /// The modes first: they are set even if nobody takes what is written.
    fn give_back(&self) {
        if self.given_back.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = io::stdout().flush();
        self.diversion.undo();
    }

    /// A panic of whatever thread is told on the terminal as it was before.
    fn give_back_on_panic(self: &Arc<Self>) {
        /// A drawing takes less than this.
        const PATIENCE: u32 = 100;
        let taken = Arc::downgrade(self);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(taken) = taken.upgrade() {
                // Whoever draws now finishes first; if it is the thread that panics, it does not.
                for _ in 0..PATIENCE {
                    match taken.drawing.try_lock() {
                        Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
                        _ => break,
                    }
                }
                taken.give_back();
            }
            before(info);
        }));
    }
}
