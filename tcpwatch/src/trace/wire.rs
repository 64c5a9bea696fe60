//! Numbers and texts as bytes: variable-length integers, as protobuf and LEB128 have them.
//!
//! A small number takes one byte, a difference of either sign two for what differs by thousands.

use super::TraceError;

/// Longest number: 64 bits in groups of seven.
const LONGEST: usize = 10;

/// Appends a number, seven bits a byte, the lowest first; the top bit says that more follow.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends the difference of two numbers so that small ones of either sign are short.
pub(super) fn put_difference(out: &mut Vec<u8>, number: u64, base: u64) {
    let difference = number.wrapping_sub(base).cast_signed();
    put(out, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
}

/// Appends bytes, their length first.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, TraceError> {
        let (&first, rest) = self.bytes.split_first().ok_or(TraceError::Short)?;
        self.bytes = rest;
        Ok(first)
    }

    pub(super) fn number(&mut self) -> Result<u64, TraceError> {
        // Most are one byte.
        match self.bytes {
            [first, rest @ ..] if *first < 0x80 => {
                self.bytes = rest;
                Ok((*first).into())
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, TraceError> {
        let mut number = 0;
        for (index, &byte) in self.bytes.iter().take(LONGEST).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(number);
            }
        }
        Err(TraceError::Short)
    }

    /// A number that was written as the difference from `base`.
    pub(super) fn difference(&mut self, base: u64) -> Result<u64, TraceError> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        Ok(base.wrapping_add(difference.cast_unsigned()))
    }

    /// Everything that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], TraceError> {
        let len = usize::try_from(self.number()?).map_err(|_| TraceError::Short)?;
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or(TraceError::Short)?;
        self.bytes = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, base: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, number);
            put_difference(&mut out, number, base);
            put_bytes(&mut out, &bytes);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.number().unwrap(), number);
            prop_assert_eq!(cursor.difference(base).unwrap(), number);
            prop_assert_eq!(cursor.bytes().unwrap(), &bytes[..]);
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.number().is_ok() {}
            let _ = Cursor::new(&bytes).bytes();
        }
    }

    #[test]
    fn small_differences_are_short() {
        let mut out = Vec::new();
        put_difference(&mut out, 1_000, 1_063);
        assert_eq!(out.len(), 1);
        put_difference(&mut out, 0, u64::MAX);
        assert_eq!(out.len(), 2);
    }
}
