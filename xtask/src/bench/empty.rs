//! The empty program on the tracepoint: the floor of what any tracer can cost.

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf, EbpfLoader, programs::BtfTracePoint};
use tcpwatch_common::name;

use crate::root;

/// Attached while it lives.
pub(crate) struct Empty {
    ebpf: Ebpf,
}

impl Empty {
    pub(crate) fn attach() -> Result<Self> {
        const RING: u32 = 4096;
        let object = root().join("tcpwatch/bpf/tcpwatch.bpf.o");
        let object =
            std::fs::read(&object).with_context(|| format!("read {}", object.display()))?;
        let mut ebpf = EbpfLoader::new().map_max_entries(name::EVENTS, RING).load(&object)?;
        let program =
            ebpf.program_mut(name::PROG_EMPTY).context("the object has no empty program")?;
        let program: &mut BtfTracePoint = program.try_into()?;
        program.load("inet_sock_set_state", &Btf::from_sys_fs()?)?;
        program.attach()?;
        Ok(Self { ebpf })
    }

    /// How long it ran, ns.
    pub(crate) fn ran_ns(&self) -> Result<u64> {
        let program = self.ebpf.program(name::PROG_EMPTY).context("the program is gone")?;
        Ok(u64::try_from(program.info()?.run_time().as_nanos())?)
    }
}
