//! What all mutations use: choices from a seed, and libFuzzer's own mutations.

use libfuzzer_sys::fuzzer_mutate;

/// xorshift64: a mutation is the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (u64::from(seed) << 16))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from((self.next() >> 16) % end).unwrap_or(0)
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A number at which something may change.
    pub(crate) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xffff,
            0x1_0000,
            u32::MAX as u64,
            u32::MAX as u64 + 1,
            30_000_000_000,
            i64::MAX as u64,
            u64::MAX,
        ];
        match self.below(3) {
            0 => self.next() >> self.below(64),
            _ => EDGES[self.below(EDGES.len())].wrapping_add(self.next() % 3).wrapping_sub(1),
        }
    }
}

/// One of libFuzzer's own mutations.
pub(crate) fn any(bytes: &mut Vec<u8>, room: usize) {
    let size = bytes.len();
    let max_size = (size + room.min(64)).max(1);
    bytes.resize(max_size, 0);
    let size = fuzzer_mutate(bytes, size, max_size);
    bytes.truncate(size);
}

/// Hands a mutation back; as much of it as there is room for.
pub(crate) fn put_back(data: &mut [u8], bytes: &[u8], max_size: usize) -> usize {
    let size = bytes.len().min(max_size).min(data.len());
    data[..size].copy_from_slice(&bytes[..size]);
    size
}
