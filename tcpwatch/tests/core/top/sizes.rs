//! Every screen at every size, after any keys: it is drawn, and nothing is drawn outside.

use proptest::prelude::*;
use tcpwatch::top::{
    app::{App, Key, Subject},
    around::{Play, Playing, Survey},
};

use super::{Person, around, screens::leak};

const KEYS: [Key; 25] = [
    Key::Char('?'),
    Key::Char('m'),
    Key::Char('s'),
    Key::Char('w'),
    Key::Char('e'),
    Key::Char('/'),
    Key::Char('4'),
    Key::Char('漢'),
    Key::Char(' '),
    Key::Char('j'),
    Key::Char('G'),
    Key::Char('+'),
    Key::Ctrl('l'),
    Key::Ctrl('u'),
    Key::Ctrl('w'),
    Key::Enter,
    Key::Enter,
    Key::Escape,
    Key::Backspace,
    Key::Up,
    Key::Down,
    Key::PageDown,
    Key::PageUp,
    Key::Home,
    Key::End,
];

/// Recordings of all kinds, among them such as only somebody mean makes.
fn play() -> impl Strategy<Value = Option<Play>> {
    let survey = (any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u64>(), 0..300));
    let play = (any::<u64>(), any::<u64>(), any::<u64>(), proptest::option::of(survey));
    proptest::option::of(play.prop_map(|(from, to, position, survey)| Play {
        span: (from, to),
        position,
        playing: Playing::Waiting,
        speed: 0.5,
        survey: survey.map(|(from, width, open)| Survey {
            from,
            width,
            gaps: open.iter().map(|number| number % 2 == 0).collect(),
            open,
        }),
    }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_keys_at_any_size(
        sizes in proptest::collection::vec((1u16..260, 1u16..80), 1..6),
        keys in proptest::collection::vec(proptest::sample::select(&KEYS[..]), 0..24),
        play in play(),
    ) {
        let mut person = Person::new(leak(), around(play.as_ref()), sizes[0]);
        let mut sizes = sizes.into_iter().cycle();
        for key in keys {
            let (width, height) = sizes.next().unwrap();
            (person.area.width, person.area.height) = (width, height);
            person.press(key);
        }
        let drawn = person.look();
        prop_assert_eq!(drawn.area, person.area);
    }
}

#[test]
fn small_screens_show_what_matters() {
    let mut person = Person::new(leak(), around(None), (40, 10));
    let text = super::lines(&person.look()).join("\n");
    for word in ["CLOSE_WAIT 20", "20 findings", "api[4242]", "not-reading", "q quit"] {
        assert!(text.contains(word), "no {word}:\n{text}");
    }
    for (width, height) in [(1, 1), (2, 2), (10, 3), (300, 100)] {
        person.area = ratatui::layout::Rect::new(0, 0, width, height);
        person.look();
    }
    person.app = App::new(Subject::Live);
    person.area = ratatui::layout::Rect::new(0, 0, 20, 3);
    assert!(super::lines(&person.look())[0].contains("CLOSE_WAIT 20"));
}
