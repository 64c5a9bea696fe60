//! What a guest has: the tests, the debug build of tcpwatch that they run, and the programs of this
//! machine that they use. Of those that only some tests need, what is installed here is taken along;
//! the tests that miss one show as ignored.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{archive::Archive, guest, kernels::Fetched};
use crate::{output, root};

/// What the tests cannot do without, and its Debian package.
const PROGRAMS: [(&str, &str); 14] = [
    ("sh", "dash"),
    ("env", "coreutils"),
    ("ls", "coreutils"),
    ("sed", "sed"),
    ("sleep", "coreutils"),
    ("true", "coreutils"),
    ("cat", "coreutils"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("python3", "python3"),
];
/// What some tests watch or compare with.
const WATCHED: [&str; 4] = ["tcpstates", "memcached", "socat", "lighttpd"];
/// What some tests read.
const RECORDING: &str = "tcpwatch/tests/traces/shop.tcpw";
/// Modules that lighttpd loads.
const LIGHTTPD: &str = "/usr/lib/lighttpd";
/// Where Debian has its programs; what is in front of it on this machine is not for the guest.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What to build, and for whom.
pub(super) struct Contents<'a> {
    pub(super) kernels: &'a [Fetched],
    /// Arguments of the tests.
    pub(super) arguments: Vec<String>,
    /// Names of the only tests to run; all, if there are none.
    pub(super) only: &'a [String],
}

/// Builds the tests and writes the initramfs that all kernels share.
pub(super) fn write(contents: &Contents<'_>, to: &Path) -> Result<()> {
    let built = Built::now()?;
    let mut arguments = contents.arguments.clone();
    if !contents.only.is_empty() {
        arguments.extend(all_but(contents.only, &built.tests)?);
    }
    let mut archive = Archive::default();
    for dir in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        archive.directory(dir);
        let short = dir.trim_start_matches("usr/");
        archive.link(short, dir);
    }
    for dir in ["proc", "sys", "dev", "run", "root", "etc", "var/run"] {
        archive.directory(dir);
    }
    archive.shared("tmp");
    archive.console("dev/console");
    archive.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    archive.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    archive.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
    programs(&mut archive)?;
    python(&mut archive)?;
    archive.file(&built.tcpwatch)?;
    archive.file(&built.tests)?;
    archive.file(&root().join(RECORDING))?;
    archive.file_at("init", &std::env::current_exe().context("find this program")?);
    let orders = guest::Orders { tcpwatch: built.tcpwatch, tests: built.tests, arguments };
    archive.text(guest::ORDERS, serde_json::to_vec(&orders)?);
    archive.libraries()?;
    for kernel in contents.kernels {
        for (number, module) in kernel.modules.iter().enumerate() {
            archive.file_at(&guest::module(&kernel.kernel.release, number), module);
        }
    }
    archive.write(to)
}

/// Arguments that leave out every test but these.
fn all_but(only: &[String], tests: &Path) -> Result<Vec<String>> {
    let list = output(Command::new(tests).args(["--list", "--format", "terse"]))?;
    let name = |line: &'_ str| -> Option<String> {
        Some(line.strip_suffix(": test")?.rsplit("] ").next()?.to_owned())
    };
    let (wanted, others): (Vec<_>, Vec<_>) =
        list.lines().filter_map(name).partition(|name| only.contains(name));
    if let Some(unknown) = only.iter().find(|name| !wanted.contains(name)) {
        bail!("there is no test {unknown}");
    }
    let skip = others.into_iter().flat_map(|name| ["--skip".to_owned(), name]);
    Ok(std::iter::once("--exact".to_owned()).chain(skip).collect())
}

fn programs(archive: &mut Archive) -> Result<()> {
    for (program, package) in PROGRAMS {
        let Some(path) = which(program) else {
            bail!("{program} is missing, which the tests need: apt-get install {package}");
        };
        archive.file(&path)?;
    }
    for path in WATCHED.into_iter().filter_map(which) {
        archive.file(&path)?;
    }
    if Path::new(LIGHTTPD).exists() {
        archive.tree(Path::new(LIGHTTPD), &|_| false)?;
    }
    Ok(())
}

fn which(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}

/// Where a Python keeps what it imports, and what the modules that some tests need consist of.
const ASK_PYTHON: &str = r#"
import json, os, sys, sysconfig
library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
for name in ("httpx", "waitress"):
    try:
        __import__(name)
    except ImportError:
        pass
modules = set()
for name in {name.split(".")[0] for name in sys.modules}:
    path = getattr(sys.modules.get(name), "__file__", None)
    if path and not any(path.startswith(place + "/") for place in library):
        modules.add(os.path.dirname(path) if path.endswith("/__init__.py") else path)
print(json.dumps({"library": sorted(set(library)), "modules": sorted(modules)}))
"#;

#[derive(Deserialize)]
struct Python {
    library: Vec<PathBuf>,
    modules: Vec<PathBuf>,
}

/// Debian's Python with its library, but for what is large and not for programs that run.
fn python(archive: &mut Archive) -> Result<()> {
    let python = which("python3").context("find python3")?;
    let answer = output(Command::new(&python).args(["-I", "-c", ASK_PYTHON]))?;
    let Python { library, modules } = serde_json::from_str(&answer).context("ask Python")?;
    let leave = |name: &str| {
        let large = ["test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"];
        large.contains(&name)
            || ["pydoc_data", "dist-packages", "site-packages"].contains(&name)
            || name.starts_with("config-")
    };
    for dir in &library {
        archive.tree(dir, &leave)?;
    }
    for path in &modules {
        if path.is_dir() {
            archive.tree(path, &|_| false)?;
        } else {
            archive.file(path)?;
        }
    }
    Ok(())
}

/// What cargo has built.
struct Built {
    tcpwatch: PathBuf,
    tests: PathBuf,
}

/// One of the lines that cargo writes.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Built {
    fn now() -> Result<Self> {
        let mut cargo = Command::new("cargo");
        let build = ["test", "--locked", "--no-run", "--test", "kernel"];
        cargo.current_dir(root()).args(build).args(["--message-format", "json-render-diagnostics"]);
        cargo.stderr(std::process::Stdio::inherit());
        let done = cargo.output().with_context(|| format!("run {cargo:?}"))?;
        if !done.status.success() {
            bail!("{cargo:?} ended with {}", done.status);
        }
        let text = String::from_utf8(done.stdout).context("read what cargo printed")?;
        let artifacts: Vec<Artifact> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let executable = |kind: &str, name: &str| {
            let is_it =
                |target: &Target| target.name == name && target.kind.iter().any(|k| k == kind);
            let artifact = artifacts.iter().find(|artifact| {
                artifact.executable.is_some() && artifact.target.as_ref().is_some_and(is_it)
            });
            let path = artifact.and_then(|artifact| artifact.executable.clone());
            path.with_context(|| format!("cargo has built no {kind} {name}"))
        };
        Ok(Self { tcpwatch: executable("bin", "tcpwatch")?, tests: executable("test", "kernel")? })
    }
}
