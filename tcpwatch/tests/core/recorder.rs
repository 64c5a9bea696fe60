//! A recorder on a disk that is slow, that is full, and that has other files on it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tcpwatch::{
    core::{
        input::Input,
        time::{Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    kernel::clock,
    sink::json::JsonSink,
    trace::tape::{Due, Tape as _},
    trace::{
        disk::{Disk, RealDisk},
        meta::{Meta, RecordedRules},
        pack::LEVEL,
        reader::{Next, Reader},
        recorder::{Options, Recorder},
    },
};

use crate::{damage, notation, properties};

/// No step of a test takes so long, however busy the machine is.
const FOREVER: Nanos = Nanos(120_000_000_000);

/// A disk whose parts can be held up and refused.
#[derive(Debug, Default)]
struct TestDisk {
    writes_wait: Gate,
    syncs_wait: Gate,
    full: AtomicBool,
    attempts: AtomicUsize,
    synced: AtomicUsize,
}

impl Disk for TestDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        self.attempts.fetch_add(1, SeqCst);
        self.writes_wait.pass();
        if self.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs_wait.pass();
        self.synced.fetch_add(1, SeqCst);
        RealDisk.sync(file)
    }
}

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(closed, |closed| *closed));
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = clock::now() + FOREVER;
    while !is_so() {
        assert!(clock::now() < until, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A recorder under test, and inputs for it.
struct Run {
    dir: tempfile::TempDir,
    disk: Arc<TestDisk>,
    recorder: Recorder,
    now: Timestamp,
    transitions: u64,
}

impl Run {
    fn new(rotate_size: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::default());
        let on: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
        let options = options(&dir.path().join("a.tcpw"), rotate_size);
        let recorder = Recorder::create_on(on, &options, meta(&properties::rules(false))).unwrap();
        Self { dir, disk, recorder, now: Timestamp(1_000_000_000), transitions: 0 }
    }

    /// A block with one transition.
    fn block(&mut self) {
        self.now.0 += 1_000_000_000;
        let at = self.now.0 / 1_000_000_000;
        let line = format!(
            "{at} tcp #{at} CLOSE>SYN_SENT 10.0.0.1:40000 10.0.0.9:80 owner=api[7]/connect"
        );
        self.recorder.keep(&notation::input(&line));
        self.transitions += 1;
        self.recorder.flush(self.now + Nanos(5_500_000_000));
    }

    fn due(&mut self) -> Due {
        self.recorder.due(self.now)
    }

    fn begin_file(&mut self) {
        self.recorder.begin_file(&notation::clock(self.now));
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn options(path: &Path, rotate_size: Option<u64>) -> Options {
    Options { path: path.to_owned(), level: LEVEL, rotate_size, rotate_every: None, keep: None }
}

fn meta(rules: &Rules) -> Meta {
    Meta {
        recording: "a".to_owned(),
        sequence: 1,
        clock: notation::clock(Timestamp(0)).into(),
        rules: RecordedRules::from(rules),
        ..Meta::default()
    }
}

/// Transitions in a file, and how many the recording had when it was closed.
fn read(path: &Path) -> (u64, Option<u64>) {
    let mut reader = Reader::open(path).unwrap();
    let mut there = 0;
    loop {
        match reader.next_block().unwrap() {
            Next::Inputs(header) => there += u64::from(header.transitions.get()),
            // The number of a block that could not be written.
            Next::Damage(damage) => assert_eq!(damage.why, "blocks are missing"),
            Next::End { before, .. } => return (there, Some(before)),
            Next::Pending { .. } => return (there, None),
        }
    }
}

#[test]
fn a_file_is_asked_for_once_however_slow_the_disk_is() {
    const FILES: usize = 6;
    let mut run = Run::new(Some(1));
    run.disk.syncs_wait.set(true);
    for _ in 1..FILES {
        run.block();
        eventually("a file is due", || run.due() == Due::File);
        run.begin_file();
        for _ in 0..100 {
            assert_eq!(run.due(), Due::Nothing, "it was asked for");
        }
        // The disk stands still from here on, and so does what it is asked for.
        run.disk.writes_wait.set(true);
        for _ in 0..10 {
            run.block();
            assert_eq!(run.due(), Due::Nothing, "it is not there yet");
        }
        run.disk.writes_wait.set(false);
    }
    eventually("the last file is begun", || run.due() == Due::File);
    let files = run.files();
    assert_eq!(files.len(), FILES);
    let Run { dir: _dir, disk, recorder, transitions, .. } = run;
    let done = recorder.finish_within(Duration::ZERO);
    assert!(!done.failing);
    let read: Vec<_> = files.iter().map(|path| read(path)).collect();
    assert_eq!(read.last().unwrap().1, Some(transitions), "the last is closed: {read:?}");
    let there: u64 = read.iter().map(|(there, _)| there).sum();
    assert_eq!(there + done.missing, transitions);
    assert!(read[..FILES - 1].iter().all(|&(there, end)| there > 0 && end.is_some()), "{read:?}");
    disk.syncs_wait.set(false);
}

#[test]
fn what_a_slow_disk_cannot_take_by_the_end_is_counted_in_the_file() {
    let mut run = Run::new(None);
    run.disk.writes_wait.set(true);
    for _ in 0..100 {
        run.block();
    }
    let standing = run.recorder.standing();
    let kept = standing.progress().missing;
    assert!((30..40).contains(&kept), "so many waited, the others were counted: {kept}");
    let disk = Arc::clone(&run.disk);
    let opener = thread::spawn(move || {
        eventually("it is late", || standing.progress().late);
        disk.writes_wait.set(false);
    });
    let Run { dir, recorder, transitions, .. } = run;
    let done = recorder.finish_within(Duration::from_millis(1));
    opener.join().unwrap();
    let (there, end) = read(&dir.path().join("a.tcpw"));
    assert_eq!(end, Some(transitions), "it is closed");
    assert_eq!(there + done.missing, transitions);
    assert!(done.missing > 90, "the disk took one block at most: {}", done.missing);
}

#[test]
fn a_disk_that_takes_nothing_is_given_up() {
    let mut run = Run::new(None);
    run.disk.writes_wait.set(true);
    run.block();
    let Run { disk, dir, recorder, transitions, .. } = run;
    let done = recorder.finish_within(Duration::ZERO);
    assert_eq!((done.missing, done.failing), (transitions, true));
    assert_eq!(read(&dir.path().join("a.tcpw")), (0, None), "it is not closed");
    disk.writes_wait.set(false);
}

#[test]
fn what_is_written_is_brought_to_the_disk_before_the_file_ends() {
    let mut run = Run::new(None);
    run.block();
    eventually("it is brought to the disk", || run.disk.synced.load(SeqCst) > 0);
    let before = run.disk.synced.load(SeqCst);
    let disk = Arc::clone(&run.disk);
    run.recorder.finish();
    assert!(disk.synced.load(SeqCst) > before, "so is its end");
}

#[test]
fn a_full_disk_is_not_asked_again_and_again_and_asks_for_nothing() {
    let mut run = Run::new(Some(1 << 30));
    let standing = run.recorder.standing();
    let empty = standing.progress().bytes;
    run.block();
    eventually("it is written", || standing.progress().bytes > empty);
    run.disk.full.store(true, SeqCst);
    run.block();
    eventually("it fails", || standing.progress().failing);
    let before = run.disk.attempts.load(SeqCst);
    let begun = clock::now();
    for _ in 0..60 {
        run.block();
        assert_eq!(run.due(), Due::Nothing, "what could not be written is no reason to look");
    }
    eventually("all are counted", || standing.progress().missing == 61);
    // One attempt after a second, one two seconds later, and so on.
    let attempts = u64::try_from(run.disk.attempts.load(SeqCst) - before).unwrap();
    let seconds = clock::now().since(begun).0 / 1_000_000_000;
    assert!(attempts <= seconds + 1, "{attempts} in {seconds} s");
    run.disk.full.store(false, SeqCst);
    eventually("it goes on", || {
        run.block();
        thread::sleep(Duration::from_millis(50));
        !standing.progress().failing
    });
    assert_eq!(run.due(), Due::Snapshot, "what has changed meanwhile is looked at");
    assert_eq!(run.due(), Due::Nothing, "once");
    let Run { dir, recorder, transitions, .. } = run;
    let done = recorder.finish();
    let (there, end) = read(&dir.path().join("a.000001.tcpw"));
    assert_eq!(end, Some(transitions));
    assert_eq!(there + done.missing, transitions);
    assert!(!done.failing && done.missing > 60);
}

#[test]
fn a_name_that_is_taken_is_passed_over() {
    let mut run = Run::new(Some(1));
    let taken = run.dir.path().join("a.000002.tcpw");
    fs::write(&taken, "somebody else's").unwrap();
    run.block();
    eventually("a file is due", || run.due() == Due::File);
    run.begin_file();
    run.block();
    eventually("it is begun", || run.due() == Due::File);
    let names: Vec<_> = run.files();
    let names: Vec<_> =
        names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.000001.tcpw", "a.000002.tcpw", "a.000003.tcpw"]);
    assert_eq!(fs::read(&taken).unwrap(), b"somebody else's");
    let third = run.dir.path().join("a.000003.tcpw");
    let transitions = run.transitions;
    let done = run.recorder.finish();
    assert_eq!((done.missing, read(&third)), (0, (1, Some(transitions))));
}

/// A leak that goes on from one file into the next.
#[test]
fn two_files_say_what_the_run_said() {
    let rules = properties::rules(false);
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir.path().join("a.tcpw"), Some(1));
    let mut recorder = Recorder::create(&options, meta(&rules)).unwrap();
    let mut live = Vec::new();
    let mut sink = JsonSink::new(&mut live);
    let mut pipeline = Driver::new(rules, &mut sink);
    pipeline.record_to(&mut recorder);
    pipeline.push(Input::Clock(notation::clock(Timestamp(0)))).unwrap();
    let mut begun = 1;
    for input in damage::story() {
        if matches!(input, Input::PassBegin { .. }) {
            pipeline.flush().unwrap();
            let now = pipeline.tracker.now();
            let tape = pipeline.tape().unwrap();
            tape.flush(now + Nanos(6_000_000_000));
            eventually("a file is due", || tape.due(now) == Due::File);
            tape.begin_file(&notation::clock(now));
            pipeline.push(Input::Clock(notation::clock(now))).unwrap();
            begun += 1;
        }
        pipeline.push(input).unwrap();
        if begun > 1 {
            pipeline.flush().unwrap();
        }
    }
    pipeline.finish().unwrap();
    assert_eq!(recorder.finish().missing, 0);
    let replayed = damage::replay_dir(dir.path());
    assert!(replayed.said.is_empty(), "{:?}", replayed.said);
    assert_eq!(replayed.out, String::from_utf8(live).unwrap());
    assert!(replayed.out.contains("\"status\":\"open\"") && begun > 3);
}
