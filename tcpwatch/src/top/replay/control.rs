//! Where a recording that is played is, and where it is to go: what the keys and the player share.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::places::Places;
use crate::{
    core::time::Timestamp,
    kernel::clock,
    source::replay::{Pace, Wait},
    top::{
        app::{Action, Edge},
        around::{Play, Playing, Survey},
    },
};

/// The slowest and the fastest that can be asked for.
const SPEEDS: (f64, f64) = (1.0 / 64.0, 65536.0);
/// A hole in a recording that would be waited for longer than this is skipped, ns.
const LONGEST_WAIT: f64 = 5e9;
/// How often the player looks whether something was typed while it goes as fast as it can.
const LOOK_EVERY: u32 = 1024;
const SECOND: i64 = 1_000_000_000;

/// Shared by the screen and the player.
#[derive(Clone, Debug)]
pub(super) struct Control {
    shared: Arc<(Mutex<State>, Condvar)>,
    /// Where one can begin to read.
    pub(super) places: Arc<Places>,
}

/// How a recording is played.
#[derive(Debug)]
struct State {
    span: (u64, u64),
    speed: f64,
    paused: bool,
    /// Wall time to reach as fast as it can.
    target: Option<u64>,
    /// The player has to begin anew for the target.
    anew: bool,
    ended: bool,
    /// Wall time of what is shown, and when it was.
    position: u64,
    at: Timestamp,
    survey: Option<Survey>,
    /// Counts what was typed.
    changes: u64,
}

impl State {
    /// Wall time of what is shown now.
    fn now(&self) -> u64 {
        if self.paused || self.ended || self.target.is_some() {
            return self.position;
        }
        let passed = clock::now().since(self.at).0;
        self.position.saturating_add(scaled(passed, self.speed)).min(self.span.1)
    }

    /// From here on time goes on as it does now.
    fn settle(&mut self) {
        (self.position, self.at) = (self.now(), clock::now());
    }

    fn go_to(&mut self, wall: u64, places: &Places) {
        let wall = wall.clamp(self.span.0, self.span.1);
        let here = self.now();
        self.anew |= wall < here || self.ended || places.is_shorter(here, wall);
        self.target = Some(wall);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a time on a screen; neither factor is negative"
)]
fn scaled(ns: u64, speed: f64) -> u64 {
    (ns as f64 * speed) as u64
}

impl Control {
    /// Of a recording of these wall times, to begin at one of them.
    pub(super) fn new(places: Places, span: (u64, u64), at: u64, speed: f64) -> Self {
        let state = State {
            span,
            speed,
            paused: false,
            target: Some(at.clamp(span.0, span.1)),
            anew: true,
            ended: false,
            position: at,
            at: clock::now(),
            survey: None,
            changes: 0,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        Self { shared, places: Arc::new(places) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the screen shows of it.
    pub(super) fn play(&self) -> Play {
        let state = self.lock();
        let playing = match () {
            () if state.target.is_some() => Playing::Seeking,
            () if state.ended => Playing::Ended,
            () if state.paused => Playing::Waiting,
            () => Playing::On,
        };
        Play {
            span: state.span,
            position: state.now(),
            playing,
            speed: state.speed,
            survey: state.survey.clone(),
        }
    }

    /// Does what was typed.
    pub(super) fn act(&self, action: &Action) {
        let mut state = self.lock();
        state.settle();
        match action {
            Action::PlayOrWait if state.ended => {
                let start = state.span.0;
                state.paused = false;
                state.go_to(start, &self.places);
            }
            Action::PlayOrWait => state.paused = !state.paused,
            Action::Faster(faster) => {
                let factor = if *faster { 2.0 } else { 0.5 };
                state.speed = (state.speed * factor).clamp(SPEEDS.0, SPEEDS.1);
            }
            Action::Skip(seconds) => {
                let from = state.target.unwrap_or(state.position);
                let to = from.saturating_add_signed(seconds.saturating_mul(SECOND));
                state.go_to(to, &self.places);
            }
            Action::Jump(edge) => {
                let (start, end) = state.span;
                state.go_to(if *edge == Edge::Start { start } else { end }, &self.places);
            }
            Action::Quit | Action::Redraw | Action::Freeze(_) | Action::Save(_) => {}
        }
        state.changes += 1;
        self.shared.1.notify_all();
    }

    /// What all of it holds is known.
    pub(super) fn surveyed(&self, survey: Survey) {
        self.lock().survey = Some(survey);
    }

    /// Where the player has to begin now, if it has to.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        let target = state.target.filter(|_| state.anew)?;
        (state.anew, state.ended) = (false, false);
        Some(target)
    }

    /// Nothing more was recorded.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if !state.anew {
            (state.target, state.ended, state.position) = (None, true, state.span.1);
        }
    }

    /// Waits until something was typed, but no longer than this.
    pub(super) fn wait(&self, span: Duration) {
        let state = self.lock();
        let changes = state.changes;
        drop(self.shared.1.wait_timeout_while(state, span, |state| state.changes == changes));
    }
}

/// The player's side.
pub(super) struct Player<'a> {
    control: &'a Control,
    /// Up to here as fast as it can, for so many inputs more without a look.
    until: u64,
    unseen: u32,
}

impl<'a> Player<'a> {
    pub(super) fn new(control: &'a Control) -> Self {
        Self { control, until: 0, unseen: 0 }
    }
}

impl Pace for Player<'_> {
    fn due(&mut self, _: Timestamp, wall_ns: u64) -> Wait {
        if self.unseen > 0 && wall_ns < self.until {
            self.unseen -= 1;
            return Wait::Now;
        }
        let mut state = self.control.lock();
        if state.anew {
            return Wait::Enough;
        }
        if let Some(target) = state.target {
            if wall_ns < target {
                state.position = wall_ns.max(state.span.0);
                (self.until, self.unseen) = (target, LOOK_EVERY);
                return Wait::Now;
            }
            (state.target, state.position, state.at) = (None, target, clock::now());
        }
        self.unseen = 0;
        if state.paused {
            return Wait::For(Duration::MAX);
        }
        let ahead = wall_ns.saturating_sub(state.now());
        #[expect(clippy::cast_precision_loss, reason = "a time to wait")]
        let wait = ahead as f64 / state.speed;
        match wait {
            0.0 => Wait::Now,
            wait if wait > LONGEST_WAIT => {
                (state.position, state.at) = (wall_ns, clock::now());
                Wait::Now
            }
            wait => Wait::For(Duration::from_secs_f64(wait / 1e9)),
        }
    }

    fn rest(&mut self, span: Duration) {
        self.control.wait(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_hole_is_skipped_and_a_short_one_is_waited_for() {
        const SECOND: u64 = 1_000_000_000;
        let control = Control::new(Places::default(), (0, 3600 * SECOND), 0, 1.0);
        assert_eq!(control.begin(), Some(0));
        let mut player = Player::new(&control);
        assert_eq!(player.due(Timestamp(0), 0), Wait::Now);
        let Wait::For(span) = player.due(Timestamp(0), 4 * SECOND) else {
            panic!("not waited for")
        };
        assert!(span <= Duration::from_secs(4));
        assert_eq!(player.due(Timestamp(0), 600 * SECOND), Wait::Now);
        assert!(control.play().position >= 600 * SECOND, "what is behind the hole is shown");
    }
}
