//! Keys, and what they ask for beyond the screen.

use std::path::PathBuf;

/// A key, whatever the terminal calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what is printed on them")]
pub enum Key {
    Char(char),
    Ctrl(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    ShiftLeft,
    ShiftRight,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What is to be done beyond the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Draw everything anew.
    Redraw,
    /// Keep the model as it is now, or let it go on.
    Freeze(bool),
    /// Write the findings of this place to this file.
    Save(PathBuf),
    /// Go on, or wait.
    PlayOrWait,
    /// Twice as fast, or half.
    Faster(bool),
    /// So many seconds forward or back.
    Skip(i64),
    /// To the beginning or the end of the recording.
    Jump(Edge),
}

/// An end of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its first moment.
    Start,
    /// Its last.
    End,
}

/// Seconds that left and right skip,
const SKIP: i64 = 10;
/// and with shift, or a page.
const SKIP_FAR: i64 = 60;

/// What a key does to the time of a recording.
pub(super) fn moves_time(key: Key) -> Option<Action> {
    match key {
        Key::Left => Some(Action::Skip(-SKIP)),
        Key::Right => Some(Action::Skip(SKIP)),
        Key::ShiftLeft | Key::PageUp => Some(Action::Skip(-SKIP_FAR)),
        Key::ShiftRight | Key::PageDown => Some(Action::Skip(SKIP_FAR)),
        Key::Home => Some(Action::Jump(Edge::Start)),
        Key::End => Some(Action::Jump(Edge::End)),
        Key::Char('+' | '=') => Some(Action::Faster(true)),
        Key::Char('-') => Some(Action::Faster(false)),
        _ => None,
    }
}
