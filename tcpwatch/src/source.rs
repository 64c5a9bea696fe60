//! Sources: what turns the outside world into inputs.

mod intake;
pub mod live;
pub mod look;
pub mod run;
pub mod states;
