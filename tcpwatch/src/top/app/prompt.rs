//! A line that is being typed.

use super::Key;

/// Characters of a line at most.
const LONGEST: usize = 256;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What rows must have in them.
    Filter {
        /// The filter to go back to.
        before: String,
    },
    /// The file to write findings to.
    File,
}

/// A question and what was typed so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What is asked for.
    pub asked: Asked,
    /// So far.
    pub text: String,
}

impl Prompt {
    /// Takes a key that does not end it.
    pub fn edit(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.text.chars().count() < LONGEST => self.text.push(c),
            Key::Backspace => {
                self.text.pop();
            }
            Key::Ctrl('u') => self.text.clear(),
            Key::Ctrl('w') => {
                let kept =
                    self.text.trim_end_matches([' ', '/']).rfind([' ', '/']).map_or(0, |at| at + 1);
                self.text.truncate(kept);
            }
            _ => {}
        }
    }
}
