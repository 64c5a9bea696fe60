//! The privileged part of a run that watches: load, attach, look once at everything, and give
//! privileges up.

use std::io;

use anyhow::Result;
use rustc_hash::FxHashSet;

use super::intake::{Intake, Pass};
use crate::{
    core::{input::Scope, time::ClockMark},
    kernel::{
        clock,
        load::{Kernel, Plan},
        privilege,
        ring::Ring,
        shed,
    },
};

/// Everything that took privileges to get.
pub struct Attached {
    pub(super) kernel: Kernel,
    pub(super) intake: Intake,
    /// The clocks before the first pass.
    pub(crate) began: ClockMark,
    /// A pass over everything, other network namespaces included: those are entered only now.
    pub(super) first: io::Result<Pass>,
}

impl Attached {
    /// Afterwards no privilege is left but those that evidence takes. Call it before any thread
    /// starts and any output is opened.
    pub fn new(plan: &Plan) -> Result<Self> {
        privilege::require()?;
        let (mut kernel, ring, passes) = Kernel::attach(plan)?;
        let began = clock::mark();
        let mut intake = Intake::new(Ring::new(ring), passes);
        let first = intake.pass(Scope::Everything, FxHashSet::default());
        intake.stay();
        shed::all_but_working(shed::evidence(), || kernel.lost().map(drop))?;
        Ok(Self { kernel, intake, began, first })
    }
}
