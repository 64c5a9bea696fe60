//! Everything that talks to the kernel: BTF, the kernel program, iterator passes, clocks.

pub mod btf;
pub mod caller;
pub mod child;
pub mod clock;
pub mod facts;
pub mod layout;
pub mod load;
pub mod lost;
pub mod memory;
pub mod meters;
mod missed;
pub mod pass;
mod pods;
pub mod preemption;
pub mod privilege;
pub mod processes;
pub mod residents;
pub mod ring;
pub mod shed;
pub mod sockstat;
mod sys;
