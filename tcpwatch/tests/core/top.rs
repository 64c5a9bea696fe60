//! The screen of `tcpwatch top`, without a terminal.

mod model;
mod save;
mod screens;
mod sizes;

use jiff::tz::TimeZone;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, layout::Rect};
use tcpwatch::{
    core::time::Nanos,
    top::{
        app::{App, Key, Subject},
        around::{Around, Costs, Play},
        model::Model,
        view::{self, Look},
    },
};

/// Around a screen that is tested.
pub(crate) fn around(play: Option<&Play>) -> Around<'_> {
    Around {
        look: Look { colour: true },
        zone: TimeZone::UTC,
        host: "web-1",
        scope: "",
        unseen: None,
        linger: Nanos(30_000_000_000),
        costs: Costs::default(),
        tape: None,
        play,
        messages: &[],
        note: None,
    }
}

/// A person in front of a screen.
pub(crate) struct Person<'a> {
    pub(crate) model: Model,
    pub(crate) app: App,
    pub(crate) around: Around<'a>,
    pub(crate) area: Rect,
}

impl<'a> Person<'a> {
    pub(crate) fn new(model: Model, around: Around<'a>, (width, height): (u16, u16)) -> Self {
        let subject = if around.play.is_some() { Subject::Recording } else { Subject::Live };
        Self { model, app: App::new(subject), around, area: Rect::new(0, 0, width, height) }
    }

    /// Looks, and then types.
    pub(crate) fn press(&mut self, key: Key) -> Option<tcpwatch::top::app::Action> {
        self.look();
        let snapshot = self.model.snapshot(&self.app.query());
        self.app.key(key, &snapshot)
    }

    /// What is drawn.
    pub(crate) fn look(&mut self) -> Buffer {
        self.model.groups.sort_by(self.app.sort);
        let snapshot = self.model.snapshot(&self.app.query());
        let (visible, lines) = view::extent(self.area, &snapshot, &self.app, &self.around);
        self.app.settle(&snapshot, visible, lines);
        let mut terminal =
            Terminal::new(TestBackend::new(self.area.width, self.area.height)).unwrap();
        terminal.draw(|frame| view::draw(frame, &snapshot, &self.app, &self.around)).unwrap();
        terminal.backend().buffer().clone()
    }
}

/// What is drawn, as lines.
pub(crate) fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    (area.top()..area.bottom())
        .map(|y| {
            let mut line = String::new();
            let mut skip = 0;
            for x in area.left()..area.right() {
                let symbol = buffer[(x, y)].symbol();
                if skip == 0 {
                    line.push_str(symbol);
                    skip = ratatui::text::Span::raw(symbol).width().saturating_sub(1);
                } else {
                    skip -= 1;
                }
            }
            line.trim_end().to_owned()
        })
        .collect()
}
