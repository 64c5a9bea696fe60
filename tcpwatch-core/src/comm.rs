//! Names that somebody else chose.
//!
//! A process can call itself anything, escape sequences included. Such text is escaped the
//! moment it is turned into a string, so no sink can forget to.

use std::{
    ffi::OsStr,
    fmt::{self, Write as _},
};

use tcpwatch_common::COMM_LEN;

/// A task's name: up to 15 bytes that the task chose itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Comm([u8; COMM_LEN]);

impl Comm {
    /// From the kernel's bytes.
    pub fn new(bytes: [u8; COMM_LEN]) -> Self {
        Self::from_bytes(&bytes)
    }

    /// The bytes as two numbers, to be hashed quickly.
    pub fn words(self) -> [u64; 2] {
        let all = u128::from_ne_bytes(self.0);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        [(all >> 64) as u64, all as u64]
    }

    /// What stands before the first zero, as much of it as fits.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut comm = [0; COMM_LEN];
        for (slot, byte) in comm.iter_mut().zip(bytes.iter().take_while(|&&byte| byte != 0)) {
            *slot = *byte;
        }
        Self(comm)
    }

    /// What stands before the first zero.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(COMM_LEN);
        &self.0[..end]
    }
}

impl From<&str> for Comm {
    fn from(text: &str) -> Self {
        let mut bytes = [0; COMM_LEN];
        for (slot, byte) in bytes.iter_mut().take(COMM_LEN - 1).zip(text.bytes()) {
            *slot = byte;
        }
        Self(bytes)
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(self.bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Text from outside made harmless: what is not UTF-8, not printable, or changes the direction
/// or width of text becomes `\xNN` or `\u{N}`.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_ascii_control() => hex(&mut out, c as u8),
                c if c.is_control() || reshapes_text(c) => {
                    out.push_str(&c.escape_unicode().to_string());
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            hex(&mut out, *byte);
        }
    }
    out
}

/// The name of a file or a program, escaped.
pub fn shown(name: impl AsRef<OsStr>) -> String {
    escape(name.as_ref().as_encoded_bytes())
}

/// Text that was escaped before, if nobody has changed it since: what [`escape`] leaves stays.
pub fn tame(text: &str) -> String {
    let escaped = |part: &str| escape(part.as_bytes());
    text.split('\\').map(escaped).collect::<Vec<_>>().join("\\")
}

fn hex(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

/// Bidirectional controls, zero-width characters and line separators.
fn reshapes_text(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(Comm::from("nginx: worker").to_string(), "nginx: worker");
        assert_eq!(Comm::from("größe").to_string(), "größe");
    }

    #[test]
    fn attacks_are_escaped() {
        assert_eq!(escape(b"\x1b[2Jx"), "\\x1b[2Jx");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\u{9b}31m");
        assert_eq!(escape("\u{202e}gpj".as_bytes()), "\\u{202e}gpj");
        assert_eq!(escape(b"a\nb\xff"), "a\\x0ab\\xff");
        assert_eq!(escape(b"\\x1b"), "\\\\x1b");
    }

    #[test]
    fn what_is_tame_stays() {
        let escaped = escape(b"\x1b[2J\\ \xff largest");
        assert_eq!(tame(&escaped), escaped);
        assert_eq!(tame("a\x1b\\x"), "a\\x1b\\x");
    }

    #[test]
    fn a_name_ends_at_its_first_nul() {
        assert_eq!(Comm::new(*b"sh\0garbage\0\0\0\0\0\0").to_string(), "sh");
        assert_eq!(Comm::new([b'a'; 16]).to_string().len(), 16);
    }
}
