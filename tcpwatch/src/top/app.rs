//! What the person at the keys has asked for: which screen, which row, which filter.
//!
//! Pure: a key and what is shown go in, and what is to be done beyond the screen comes out.

mod action;
mod cursor;
mod prompt;

use std::path::PathBuf;

pub use self::{
    action::{Action, Edge, Key},
    cursor::Cursor,
    prompt::{Asked, Prompt},
};
use super::{
    model::{Sort, Which},
    snapshot::{Page, Place, Query, Snapshot},
};
use crate::core::{culprits::Key as Culprit, socket::SocketId};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What happens now.
    Live,
    /// What a recording holds.
    Recording,
}

/// Over the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// What was said meanwhile.
    Messages,
}

/// Which findings are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    Open,
    Ended,
}

/// The state of the screen.
#[derive(Clone, Debug)]
pub struct App {
    /// What is shown.
    pub subject: Subject,
    /// In which order culprits are shown.
    pub sort: Sort,
    /// Sockets: the youngest first.
    pub youngest: bool,
    /// What has ended: what ended first comes first.
    pub earliest: bool,
    /// The display stands still.
    pub frozen: bool,
    /// Over the screen.
    pub overlay: Option<Overlay>,
    /// What is being typed.
    pub prompt: Option<Prompt>,
    /// The row that is selected.
    pub culprits: Cursor<Culprit>,
    /// The same among the sockets of a culprit.
    pub sockets: Cursor<Which>,
    /// The same among what has ended.
    pub ended: Cursor<Which>,
    /// Lines of a story, or of what is over the screen, that are scrolled away.
    pub scrolled: usize,
    /// Filters of the three lists.
    filters: [String; 3],
    /// The culprit that was gone into, which findings are listed, and the one that was gone into.
    culprit: Option<Culprit>,
    listed: Listed,
    story: Option<Which>,
    /// The socket that is selected, or of the selected culprit the oldest, as drawn last.
    socket: Option<SocketId>,
    /// Rows of a page, as drawn last.
    page: usize,
}

impl App {
    /// Nothing was typed yet.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            sort: Sort::default(),
            youngest: false,
            earliest: false,
            frozen: false,
            overlay: None,
            prompt: None,
            culprits: Cursor::default(),
            sockets: Cursor::default(),
            ended: Cursor::default(),
            scrolled: 0,
            filters: Default::default(),
            culprit: None,
            listed: Listed::Open,
            story: None,
            socket: None,
            page: 1,
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        match (self.story, self.culprit) {
            (Some(which), _) => Place::Story(which),
            (None, _) if self.listed == Listed::Ended => Place::Ended,
            (None, Some(key)) => Place::Sockets(key),
            (None, None) => Place::Culprits,
        }
    }

    /// What is to be shown.
    pub fn query(&self) -> Query {
        let place = self.place();
        Query {
            place,
            filter: self.filter().to_lowercase(),
            reversed: if place == Place::Ended { self.earliest } else { self.youngest },
            selected: self.culprits.key(),
            socket: self.socket,
            held: matches!(place, Place::Sockets(_)) && self.sockets.key().is_some(),
        }
    }

    /// The filter of this place.
    pub fn filter(&self) -> &str {
        match self.place() {
            Place::Culprits => &self.filters[0],
            Place::Sockets(_) => &self.filters[1],
            Place::Ended => &self.filters[2],
            Place::Story(_) => "",
        }
    }

    /// Takes in what is about to be drawn: of so many rows or lines, so many can be seen.
    pub fn settle(&mut self, snapshot: &Snapshot, visible: usize, lines: usize) {
        self.page = visible.max(1);
        if let Some(key) = snapshot.culprit {
            self.culprits.follow(key);
            self.culprit = self.culprit.map(|_| key);
        }
        let selected = match &snapshot.page {
            Page::Culprits(list) => {
                self.culprits.settle(list.rows.iter().map(|row| row.key), self.page);
                list.rows.get(self.culprits.index()).and_then(|row| row.socket)
            }
            Page::Sockets(_, list) => {
                self.sockets.settle(list.rows.iter().map(|row| row.which), self.page);
                list.rows.get(self.sockets.index()).map(|row| row.which.id)
            }
            Page::Ended(list) => {
                self.ended.settle(list.rows.iter().map(|row| row.which), self.page);
                None
            }
            Page::Story(_) => None,
        };
        self.socket = selected.or(self.socket);
        self.scrolled = self.scrolled.min(lines.saturating_sub(visible));
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key, snapshot: &Snapshot) -> Option<Action> {
        if key == Key::Ctrl('c') {
            return Some(Action::Quit);
        }
        if self.prompt.is_some() {
            return self.typed(key);
        }
        if self.overlay.is_some() {
            return self.over(key);
        }
        match key {
            Key::Char('q') => Some(Action::Quit),
            Key::Ctrl('l') => Some(Action::Redraw),
            Key::Char(' ') => Some(self.pause()),
            Key::Char('?' | 'h') => self.show(Overlay::Help),
            Key::Char('m') => self.show(Overlay::Messages),
            Key::Char('s') => self.sort(),
            Key::Char('e') if self.story.is_none() => {
                self.listed =
                    if self.listed == Listed::Open { Listed::Ended } else { Listed::Open };
                None
            }
            Key::Char('w') => self.ask(Asked::File, file_name(snapshot)),
            Key::Char('/') if !matches!(self.place(), Place::Story(_)) => {
                let filter = self.filter().to_owned();
                self.ask(Asked::Filter { before: filter.clone() }, filter)
            }
            Key::Enter => self.enter(snapshot),
            Key::Escape | Key::Backspace => self.back(),
            _ if self.subject == Subject::Recording && action::moves_time(key).is_some() => {
                action::moves_time(key)
            }
            _ => self.moved(key, snapshot),
        }
    }

    fn pause(&mut self) -> Action {
        if self.subject == Subject::Recording {
            return Action::PlayOrWait;
        }
        self.frozen = !self.frozen;
        Action::Freeze(self.frozen)
    }

    fn show(&mut self, overlay: Overlay) -> Option<Action> {
        self.overlay = Some(overlay);
        self.scrolled = 0;
        None
    }

    fn sort(&mut self) -> Option<Action> {
        match self.place() {
            Place::Culprits => {
                self.sort = self.sort.next();
                self.culprits = Cursor::default();
            }
            Place::Sockets(_) => {
                self.youngest = !self.youngest;
                self.sockets = Cursor::default();
            }
            Place::Ended => {
                self.earliest = !self.earliest;
                self.ended = Cursor::default();
            }
            Place::Story(_) => {}
        }
        None
    }

    fn ask(&mut self, asked: Asked, text: String) -> Option<Action> {
        self.prompt = Some(Prompt { asked, text });
        None
    }

    /// A key while something is typed.
    fn typed(&mut self, key: Key) -> Option<Action> {
        let mut prompt = self.prompt.take()?;
        match key {
            Key::Enter => {
                if let Asked::File = prompt.asked {
                    let name = prompt.text.trim();
                    return (!name.is_empty()).then(|| Action::Save(PathBuf::from(name)));
                }
                return None;
            }
            Key::Escape => {
                if let Asked::Filter { before } = prompt.asked {
                    self.set_filter(before);
                }
                return None;
            }
            _ => prompt.edit(key),
        }
        if let Asked::Filter { .. } = prompt.asked {
            self.set_filter(prompt.text.clone());
        }
        self.prompt = Some(prompt);
        None
    }

    fn set_filter(&mut self, filter: String) {
        match self.place() {
            Place::Culprits => {
                self.filters[0] = filter;
                self.culprits = Cursor::default();
            }
            Place::Sockets(_) => {
                self.filters[1] = filter;
                self.sockets = Cursor::default();
            }
            Place::Ended => {
                self.filters[2] = filter;
                self.ended = Cursor::default();
            }
            Place::Story(_) => {}
        }
    }

    /// A key while something is over the screen.
    fn over(&mut self, key: Key) -> Option<Action> {
        match key {
            Key::Char('q' | '?' | 'h' | 'm') | Key::Escape | Key::Enter | Key::Backspace => {
                self.overlay = None;
                self.scrolled = 0;
            }
            Key::Ctrl('l') => return Some(Action::Redraw),
            _ => self.scroll(key),
        }
        None
    }

    fn enter(&mut self, snapshot: &Snapshot) -> Option<Action> {
        match &snapshot.page {
            Page::Culprits(list) => {
                let row = list.rows.get(self.culprits.index())?;
                self.culprits.hold(row.key);
                self.culprit = Some(row.key);
                self.filters[1].clear();
                self.sockets = Cursor::default();
            }
            Page::Sockets(_, list) => {
                let row = list.rows.get(self.sockets.index())?;
                self.sockets.hold(row.which);
                self.story = Some(row.which);
                self.scrolled = 0;
            }
            Page::Ended(list) => {
                let row = list.rows.get(self.ended.index())?;
                self.ended.hold(row.which);
                self.story = Some(row.which);
                self.scrolled = 0;
            }
            Page::Story(_) => {}
        }
        None
    }

    /// To where it came from; a filter is taken off first.
    fn back(&mut self) -> Option<Action> {
        if !self.filter().is_empty() {
            self.set_filter(String::new());
        } else if self.story.take().is_none() {
            match self.listed {
                Listed::Open => self.culprit = None,
                Listed::Ended => self.listed = Listed::Open,
            }
        }
        self.scrolled = 0;
        None
    }

    fn moved(&mut self, key: Key, snapshot: &Snapshot) -> Option<Action> {
        match &snapshot.page {
            Page::Culprits(list) => {
                let keys: Vec<_> = list.rows.iter().map(|row| row.key).collect();
                self.culprits.step(key, self.page, &keys);
            }
            Page::Sockets(_, list) => {
                let keys: Vec<_> = list.rows.iter().map(|row| row.which).collect();
                self.sockets.step(key, self.page, &keys);
            }
            Page::Ended(list) => {
                let keys: Vec<_> = list.rows.iter().map(|row| row.which).collect();
                self.ended.step(key, self.page, &keys);
            }
            Page::Story(_) => self.scroll(key),
        }
        None
    }

    fn scroll(&mut self, key: Key) {
        // What is too far is put right when it is drawn.
        self.scrolled = cursor::target(key, self.scrolled, self.page, usize::MAX);
    }
}

/// A name that says what is in the file and of when it is.
fn file_name(snapshot: &Snapshot) -> String {
    let header = &snapshot.header;
    let wall = crate::sink::moment(header.clock.wall_ns(header.now));
    let time = wall.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    format!("tcpwatch-findings-{time}.jsonl")
}
