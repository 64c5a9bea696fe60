//! Any bytes as a trace file.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
};

use rustix::fs::{MemfdFlags, memfd_create};
use tcpwatch::{
    core::time::Nanos,
    source::replay::{Notes, Play},
    stop::Stop,
    trace::{
        block::BLOCK_HEADER_LEN,
        reader::{Next, Reader},
        recording::{self, Moment, Range, Recording},
    },
};

use super::everything::Everything;

/// A file in memory that holds one input after the other.
pub(crate) struct TraceFile {
    file: File,
    path: PathBuf,
    stop: Stop,
}

impl TraceFile {
    pub(crate) fn new() -> Self {
        let memory = memfd_create("trace", MemfdFlags::CLOEXEC).expect("a file in memory");
        let file = File::from(memory);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Self { file, path, stop: Stop::when_told() }
    }

    /// Reads the bytes and replays them, whole and in part. Panics where something is wrong.
    pub(crate) fn run(&mut self, bytes: &[u8]) {
        self.file.set_len(0).expect("memory");
        self.file.write_all_at(bytes, 0).expect("memory");
        let Ok(mut recordings) = recording::recordings(std::slice::from_ref(&self.path)) else {
            // What cannot be read is refused by everyone.
            assert!(Reader::open(&self.path).is_err());
            return;
        };
        let recording = recordings.remove(0);
        self.read(bytes.len() as u64);
        self.replay(&recording, Range::default());
        let half = recording.span().map_or(0, |(start, end)| end.saturating_sub(start) / 2);
        let middle = [Moment::AfterStart(Nanos(half)), Moment::BeforeEnd(Nanos(half / 2))];
        if let Ok(range) = recording.range(Some(middle[0]), Some(middle[1])) {
            self.replay(&recording, range);
        }
    }

    /// Reading goes forward, and ends.
    fn read(&self, len: u64) {
        let mut reader = Reader::open(&self.path).expect("it was read before");
        let mut steps = 0;
        loop {
            let before = reader.position();
            let next = reader.next_block().expect("memory can be read");
            steps += 1;
            // A block is told once, and once more if others are missing before it.
            assert!(
                steps <= 3 + 2 * len / BLOCK_HEADER_LEN as u64,
                "{steps} steps for {len} bytes"
            );
            assert!(before <= reader.position(), "from {before} back to {}", reader.position());
            match next {
                Next::Damage(damage) => {
                    assert!(damage.from <= damage.to && damage.to <= len, "{damage:?} of {len}");
                }
                Next::Pending { torn } => {
                    assert_eq!(reader.position() + torn, len);
                    return;
                }
                Next::Inputs(header) => {
                    assert_eq!(reader.payload().len(), header.raw_len.get() as usize);
                }
                Next::End { .. } => {}
            }
        }
    }

    fn replay(&mut self, recording: &Recording, range: Range) {
        let rules = recording.meta.rules.rules();
        let mut sink = Everything::new(rules.linger);
        let play = Play {
            rules,
            range,
            speed: None,
            follow: false,
            stop: &mut self.stop,
            partial: false,
            notes: &mut Silent,
        };
        play.run(recording, &mut sink).expect("what was opened is replayed");
        sink.report().expect("nothing is written anywhere");
    }
}

struct Silent;

impl Notes for Silent {
    fn say(&mut self, _line: &str) {}
}
