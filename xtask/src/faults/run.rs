//! A live run that writes JSON to a file, and a load beside it.

use std::{
    env,
    fs::{self, File},
    io::{BufReader, Seek as _},
    path::{Path, PathBuf},
    process::id,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, ensure};

use super::{hidden::Hidden, ledger::Ledger};
use crate::{
    hold::{Held, Holder},
    load::{
        Churn, TRANSITIONS_PER_CONNECTION, TRANSITIONS_PER_LEAK, TRANSITIONS_PER_LISTENER,
        namespace, quiet,
    },
    tool::{Ended, Tool},
};

/// tcpwatch, live, on this thread's network namespace or all of the host.
pub(super) struct Run {
    pub(super) tool: Tool,
    out: File,
    hidden: Hidden,
}

impl Run {
    pub(super) fn start(flags: &[&str]) -> Result<Self> {
        Self::start_on_host(&[&["-N", &namespace()?], flags].concat())
    }

    /// The same on all namespaces.
    pub(super) fn start_on_host(flags: &[&str]) -> Result<Self> {
        // Without a name it is gone with the run.
        let dir = Dir::new()?;
        let path = dir.join("out");
        let out = File::options().read(true).write(true).create_new(true).open(&path)?;
        let flags = [&["-j"], flags].concat();
        let hidden = Hidden::start()?;
        Ok(Self { tool: Tool::tcpwatch(&flags, out.try_clone()?.into())?, out, hidden })
    }

    /// Ends it, as a person does, and reads what it showed. It must have ended well.
    pub(super) fn stop(mut self) -> Result<(Ledger, Ended)> {
        let ended = self.tool.stop()?;
        ensure!(ended.status.success(), "it ended with {}: {}", ended.status, ended.stderr);
        let mut ledger = Ledger::default();
        ledger.hidden = self.hidden.stop()?;
        self.out.rewind()?;
        ledger.read(BufReader::with_capacity(1 << 20, &self.out))?;
        Ok((ledger, ended))
    }
}

/// Connections at full speed, and a process that leaks beside them.
pub(super) struct Traffic {
    churn: Churn,
    holder: Holder,
    leaks: u32,
}

/// What there was.
pub(super) struct Sent {
    pub(super) transitions: u64,
    pub(super) held: Held,
    /// Still there, with its leaks.
    pub(super) holder: Holder,
}

impl Traffic {
    /// So many leaks, over so many seconds.
    pub(super) fn start(leaks: u32, seconds: u64) -> Result<Self> {
        let per_second = leaks.div_ceil(u32::try_from(seconds)?);
        let holder = Holder::start(0, leaks, leaks, per_second)?;
        Ok(Self { churn: Churn::start(None)?, holder, leaks })
    }

    /// Ends it when all leaks are there, and waits until nothing happens any more; `others` are sockets
    /// that others have open.
    pub(super) fn stop(self, others: u64) -> Result<Sent> {
        let Self { churn, mut holder, leaks } = self;
        let held = holder.held()?;
        let connections = churn.stop()?;
        let leaks = u64::from(leaks);
        quiet(leaks + 1 + others)?;
        let transitions = connections * TRANSITIONS_PER_CONNECTION
            + TRANSITIONS_PER_LISTENER
            + leaks * TRANSITIONS_PER_LEAK
            + 1;
        Ok(Sent { transitions, held, holder })
    }
}

/// A directory that is gone with it.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcpwatch-faults-{}-{}", id(), NUMBER.fetch_add(1, Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
