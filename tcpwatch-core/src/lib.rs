//! The pure core: inputs in, records out.
//!
//! It uses no clock, no file, no socket, no tokio and no aya. Whatever it knows arrived in an
//! [`input::Input`], so a recording answers the same as the run that made it.

pub mod advice;
pub mod comm;
pub mod container;
pub mod culprits;
pub mod detail;
pub mod evidence;
pub mod filter;
pub mod finding;
pub mod growth;
pub mod holders;
pub mod input;
pub mod linger;
pub mod lingering;
pub mod listeners;
pub mod names;
pub mod process;
pub mod record;
pub mod settle;
pub mod socket;
pub mod state;
pub mod table;
pub mod time;
pub mod tracker;
pub mod unseen;
pub mod verdict;
pub mod waiters;
