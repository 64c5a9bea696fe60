//! Sources: what turns the outside world into inputs.

pub mod live;
pub mod look;
pub mod states;
