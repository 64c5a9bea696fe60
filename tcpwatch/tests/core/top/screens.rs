//! Each file in `tests/screens` is a story, and the screens that it leads to (`> `).
//!
//! ```text
//! rules linger=30s
//! 0 tcp #1 ...          a story, as in `report.rs`; `ticks` marks the clock every second, and
//! process 7 fds=9 ...   is what a process says whenever it is asked
//! show 80x24 down enter the screen of this size after these keys
//! again 80x24 esc       the same person looks again, at what there is by now
//! frozen, lost, ...     what is around it, see `Setting`
//! ```
//!
//! A new case is a new file. `UPDATE_SCREENS=1 cargo test --test core screens` writes what is drawn
//! into its file; look at the difference.

use std::{env, fmt::Write as _, fs, path::Path};

use ratatui::style::{Color, Modifier};
use tcpwatch::{
    core::{time::Timestamp, unseen::Unseen},
    top::{
        app::Key,
        around::{Costs, Note, Play, Playing, Survey, Tape},
        model::Model,
    },
};

use super::{Person, around, lines};
use crate::{notation, report::story::Story};

/// What is around a screen, as lines of its file say.
#[derive(Default)]
struct Setting {
    play: Option<Play>,
    costs: Costs,
    tape: Option<Tape>,
    scope: String,
    messages: Vec<String>,
    note: Option<(String, bool)>,
    blind: bool,
}

impl Setting {
    /// Takes a line that is about it.
    fn line(&mut self, line: &str) -> bool {
        let wall = |text: &str| notation::clock(notation::time(text)).real_ns;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (word, &words[..]) {
            ("play", [from, position, to, state, speed]) => {
                let playing = match *state {
                    "on" => Playing::On,
                    "waiting" => Playing::Waiting,
                    "seeking" => Playing::Seeking,
                    "ended" => Playing::Ended,
                    other => panic!("no state {other}"),
                };
                self.play = Some(Play {
                    span: (wall(from), wall(to)),
                    position: wall(position),
                    playing,
                    speed: speed.parse().unwrap(),
                    survey: None,
                });
            }
            // Pieces of ten seconds: open findings, with × where something is missing.
            ("survey", pieces) => {
                let play = self.play.as_mut().unwrap();
                play.survey = Some(Survey {
                    from: play.span.0,
                    width: 10_000_000_000,
                    open: pieces
                        .iter()
                        .map(|text| text.trim_end_matches('×').parse().unwrap())
                        .collect(),
                    gaps: pieces.iter().map(|text| text.ends_with('×')).collect(),
                });
            }
            ("costs", [kernel, agent]) => {
                self.costs = Costs { kernel_ns: kernel.parse().ok(), agent: agent.parse().ok() };
            }
            ("recording", [bytes, failing]) => {
                self.tape =
                    Some(Tape { bytes: bytes.parse().unwrap(), failing: *failing == "failing" });
            }
            ("scope", _) => rest.clone_into(&mut self.scope),
            ("said", _) => self.messages.push(rest.to_owned()),
            ("blind", _) => self.blind = true,
            ("note", _) => self.note = Some((rest.to_owned(), false)),
            _ => return false,
        }
        true
    }
}

fn key(name: &str) -> Key {
    match name {
        "enter" => Key::Enter,
        "esc" => Key::Escape,
        "down" => Key::Down,
        "end" => Key::End,
        "pagedown" => Key::PageDown,
        "space" => Key::Char(' '),
        other => {
            let mut characters = other.chars();
            let (Some(c), None) = (characters.next(), characters.next()) else {
                panic!("no key {other}")
            };
            Key::Char(c)
        }
    }
}

/// The file as it should be.
fn run(text: &str) -> String {
    let rules = text.lines().find(|line| line.starts_with("rules")).unwrap_or("rules");
    let mut story = Story::new(rules);
    let mut setting = Setting::default();
    let mut whole = String::new();
    let mut app = None;
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        let _ = writeln!(whole, "{line}");
        let again = line.strip_prefix("again ");
        let Some(asked) = line.strip_prefix("show ").or(again) else {
            if !setting.line(line) {
                story.line(line);
            }
            continue;
        };
        let mut words = asked.split_whitespace();
        let (width, height) = words.next().unwrap().split_once('x').unwrap();
        let size = (width.parse().unwrap(), height.parse().unwrap());
        let mut model = Model::new(story.rules().linger);
        story.tell(&mut model);
        let mut around = around(setting.play.as_ref());
        around.costs = setting.costs;
        around.tape = setting.tape;
        around.scope = &setting.scope;
        around.unseen = setting.blind.then_some(Unseen::Processes);
        around.messages = &setting.messages;
        around.note = setting.note.as_ref().map(|(text, bad)| Note { text, bad: *bad });
        let mut person = Person::new(model, around, size);
        if let (Some(app), Some(_)) = (app.take(), again) {
            person.app = app;
        }
        for name in words {
            person.press(key(name));
        }
        for line in lines(&person.look()) {
            let _ = writeln!(whole, "{}", format!("> {line}").trim_end());
        }
        app = Some(person.app);
    }
    whole
}

#[test]
fn screens_look_as_their_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens");
    let mut failures = String::new();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let expected = fs::read_to_string(&path).unwrap();
        let got = run(&expected);
        if got != expected {
            if env::var_os("UPDATE_SCREENS").is_some() {
                fs::write(&path, &got).unwrap();
            } else {
                let _ = writeln!(failures, "{}\n got:\n{got}", path.display());
            }
        }
        count += 1;
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 8, "only {count} files of screens were found");
}

/// A model with one culprit, and some transitions lost.
pub(super) fn leak() -> Model {
    let mut story = Story::new("rules linger=10s");
    for line in [
        "looks",
        "* 20 1 0 tcp #{} ESTABLISHED>CLOSE_WAIT 10.0.0.1:40000 10.2.3.4:5432 role=client owner=api[4242]/connect unread=1 inode=7",
        "60 lost 3",
        "60 clock",
    ] {
        story.line(line);
    }
    let mut model = Model::new(story.rules().linger);
    story.tell(&mut model);
    model
}

#[test]
fn without_colours_there_are_none_and_what_matters_stands_out() {
    for colour in [true, false] {
        let mut around = around(None);
        around.look.colour = colour;
        let buffer = Person::new(leak(), around, (80, 24)).look();
        let coloured = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(coloured, colour);
        assert!(buffer.content.iter().all(|cell| cell.bg == Color::Reset));
        // The selected row, and what was lost in the last minute.
        let reversed = |cell: &&ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
        let text: String =
            buffer.content.iter().filter(reversed).map(ratatui::buffer::Cell::symbol).collect();
        assert!(text.contains("api[4242]") && text.contains("3 LOST"), "{text}");
    }
}

/// The limit of a process that is nearly reached, in the selected row and in another.
#[test]
fn what_hurts_is_seen_in_the_selected_row_too() {
    let mut story = Story::new("rules linger=5s");
    for line in [
        "looks",
        "ticks",
        "process 7 fds=1000 limit=1024 threads=1S:futex_do_wait",
        "process 8 fds=1001 limit=1024 threads=1S:futex_do_wait",
        "* 60 1 0 tcp #{} ESTABLISHED>CLOSE_WAIT 10.0.0.1:4 10.2.3.4:5432 role=client owner=a[7]/connect inode=7",
        "* 60 1 0 tcp #9{} ESTABLISHED>CLOSE_WAIT 10.0.0.1:4 10.2.3.4:5432 role=client owner=b[8]/connect inode=7",
        "62 clock",
    ] {
        story.line(line);
    }
    let mut model = Model::new(story.rules().linger);
    story.tell(&mut model);
    let mut person = Person::new(model, around(None), (80, 24));
    let buffer = person.look();
    let text = lines(&buffer);
    for y in [5, 6] {
        let x = text[y].chars().count() - 1;
        assert!(text[y].ends_with('s'), "{}", text[y]);
        let limit = &buffer[(u16::try_from(x).unwrap(), u16::try_from(y).unwrap())];
        let owner = &buffer[(0, u16::try_from(y).unwrap())];
        assert_eq!(limit.fg, Color::Red);
        assert_ne!(limit.style(), owner.style(), "it stands out in its row");
    }
}

#[test]
fn names_that_others_chose_do_not_move_the_cursor() {
    let mut model = leak();
    let mut story = Story::new("rules linger=1s");
    for line in [
        "looks",
        "100 tcp #99 ESTABLISHED>CLOSE_WAIT 10.0.0.1:40000 10.2.3.4:5432 owner=\u{9b}2J\u{202e}\u{7}[7]/fd unread=1 inode=7",
        "105 clock",
    ] {
        story.line(line);
    }
    story.tell(&mut model);
    let mut person = Person::new(model, around(None), (200, 60));
    let plain = |buffer: &ratatui::buffer::Buffer| {
        let text = lines(buffer).join("\n");
        assert!(text.contains("\\u{9b}2J\\u{202e}"), "{text}");
        let bad = |c: char| c.is_control() && c != '\n' || ('\u{200b}'..='\u{202e}').contains(&c);
        assert!(!text.chars().any(bad), "{text:?}");
    };
    person.press(Key::Char('s'));
    person.press(Key::Char('s'));
    plain(&person.look());
    person.press(Key::End);
    person.press(Key::Enter);
    plain(&person.look());
    person.press(Key::Enter);
    plain(&person.look());
}

#[test]
fn a_display_that_stands_still_says_so_and_does() {
    let mut model = leak();
    let frozen = model.frozen();
    let mut person = Person::new(frozen, around(None), (80, 24));
    person.press(Key::Char(' '));
    let before = lines(&person.look());
    assert!(before[0].contains("PAUSED, tracing goes on"), "{}", before[0]);
    assert!(before[23].contains("go on"), "{}", before[23]);
    // Time goes on in the model only.
    let mut story = Story::new("rules linger=10s");
    story.line("900 clock");
    story.tell(&mut model);
    assert_eq!(lines(&person.look()), before);
    assert!(model.now() >= Timestamp(900_000_000_000));
}
