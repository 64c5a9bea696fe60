//! Sources: what turns the outside world into inputs.

pub mod live;
pub mod look;
pub mod run;
pub mod states;
