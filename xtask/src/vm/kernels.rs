//! Which kernels there are, which are wanted, and where they are kept once fetched.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::{Apt, Suite};
use crate::exec;

/// Those with kernels; the first that has a line is asked for it.
const SUITES: [Suite; 6] = [
    Suite { name: "bookworm", security: true },
    Suite { name: "bookworm-backports", security: false },
    Suite { name: "trixie", security: true },
    Suite { name: "trixie-backports", security: false },
    Suite { name: "sid", security: false },
    Suite { name: "bullseye", security: true },
];

/// What upstream maintains for years, so what people run. No suite has some of them.
pub(super) const LONG_TERM: [&str; 6] = ["5.10", "5.15", "6.1", "6.6", "6.12", "6.18"];

/// What the tests need that is no part of the kernel image, in the order of loading.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

/// A kernel that a suite has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    /// Of the package: the release of a stable Debian hides which stable update it is.
    pub(super) version: String,
    pub(super) suite: String,
    /// With their versions.
    pub(super) packages: Vec<String>,
}

impl Kernel {
    /// As `6.12`.
    pub(super) fn line(&self) -> String {
        let (major, minor) = self.numbers();
        format!("{major}.{minor}")
    }

    /// The same as numbers.
    pub(super) fn numbers(&self) -> (u64, u64) {
        let numbers = Version::of(&self.release).0;
        (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0))
    }

    /// Whether `6.12` or `6.12.90` means this one: not 6.1.
    fn is(&self, wanted: &str) -> bool {
        let goes_on = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
        self.release.strip_prefix(wanted).is_some_and(goes_on)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.release, self.version, self.suite)
    }
}

/// The numbers in a version, which is enough to order the kernels of one line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(Vec<u64>);

impl Version {
    pub(super) fn of(text: &str) -> Self {
        let words = text.split(|next: char| !next.is_ascii_digit());
        Self(words.filter_map(|word| word.parse().ok()).collect())
    }
}

/// `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64`; not of a package that only
/// depends on the newest.
pub(super) fn release_of(package: &str) -> Option<&str> {
    let kinds = ["linux-image-", "linux-binary-", "linux-modules-"];
    let release = kinds.iter().find_map(|kind| package.strip_prefix(kind))?;
    let mut numbers = release.split(|next: char| !next.is_ascii_digit());
    let all_three = numbers.by_ref().take(3).filter(|word| !word.is_empty()).count() == 3;
    all_three.then_some(release)
}

/// A kernel with its files on this machine.
pub(super) struct Fetched {
    pub(super) kernel: Kernel,
    pub(super) image: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// All suites, each read when it is needed.
pub(super) struct Catalogue {
    dir: PathBuf,
    /// Read them again although they were read in an earlier run.
    update: bool,
    read: RefCell<BTreeMap<&'static str, Listed>>,
}

/// What a suite has.
#[derive(Clone)]
struct Listed {
    /// Read in this run.
    fresh: bool,
    kernels: Result<Vec<Kernel>, String>,
}

impl Catalogue {
    pub(super) fn open(dir: PathBuf, update: bool) -> Self {
        Self { dir, update, read: RefCell::default() }
    }

    /// The newest kernel with this beginning, of the first suite that has one.
    pub(super) fn find(&self, wanted: &str) -> Result<Option<Kernel>> {
        let found = SUITES.into_iter().find_map(|suite| {
            let kernels = self.suite(suite, self.update).kernels.unwrap_or_default();
            kernels.into_iter().filter(|kernel| kernel.is(wanted)).max_by_key(age)
        });
        if found.is_none() {
            self.must_be_complete()?;
        }
        Ok(found)
    }

    /// The newest of each line, oldest first.
    pub(super) fn lines(&self) -> Result<Vec<Kernel>> {
        let mut lines: BTreeMap<_, Kernel> = BTreeMap::new();
        for suite in SUITES {
            let kernels = self.suite(suite, self.update).kernels.unwrap_or_default();
            for kernel in kernels {
                let known = lines.entry(kernel.numbers()).or_insert_with(|| kernel.clone());
                // A backport is not newer than what it is a port of.
                if known.suite == kernel.suite && age(known) < age(&kernel) {
                    *known = kernel;
                }
            }
        }
        self.must_be_complete()?;
        Ok(lines.into_values().collect())
    }

    /// Whether its files are on this machine.
    pub(super) fn has(&self, kernel: &Kernel) -> bool {
        self.place(kernel).join("kernel.json").exists()
    }

    /// Its files, downloaded if they are not on this machine.
    pub(super) fn fetch(&self, kernel: &Kernel) -> Result<Fetched> {
        let mut kernel = kernel.clone();
        if !self.has(&kernel) {
            // A list of long ago may name packages that the mirror has no more.
            if let Some(suite) = SUITES.into_iter().find(|suite| suite.name == kernel.suite)
                && let Ok(kernels) = self.suite(suite, true).kernels
            {
                let line = kernels.into_iter().filter(|other| other.numbers() == kernel.numbers());
                kernel = line.max_by_key(age).unwrap_or(kernel);
            }
        }
        if !self.has(&kernel) {
            eprintln!("vm: fetching {kernel}");
            self.download(&kernel).with_context(|| format!("fetch the kernel {kernel}"))?;
        }
        let place = self.place(&kernel);
        let module = |name| place.join(format!("{name}.ko"));
        let modules = MODULES.into_iter().map(module).filter(|path| path.exists()).collect();
        Ok(Fetched { kernel, image: place.join("vmlinuz"), modules })
    }

    fn place(&self, kernel: &Kernel) -> PathBuf {
        self.dir.join(&kernel.release)
    }

    /// Unpacks next to its place and moves it there, so a place is either whole or not there.
    fn download(&self, kernel: &Kernel) -> Result<()> {
        let work = self.dir.join(format!("{}.{}", kernel.release, std::process::id()));
        let (packages, tree, new) = (work.join("packages"), work.join("tree"), work.join("new"));
        let _remover = Remover(&work);
        for dir in [&packages, &tree, &new] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let apt = Apt::open(&self.dir.join("suites").join(&kernel.suite));
        apt.download(&kernel.packages, &packages)?;
        for package in fs::read_dir(&packages)? {
            exec(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(&tree))?;
        }
        let image = find(&tree, &|name| name.starts_with("vmlinuz"))
            .with_context(|| format!("{} have no vmlinuz", kernel.packages.join(" and ")))?;
        fs::copy(image, new.join("vmlinuz"))?;
        for module in MODULES {
            let plain = format!("{module}.ko");
            let Some(path) = find(&tree, &|name| name.starts_with(&plain)) else { continue };
            fs::write(new.join(plain), unpacked(&path)?)?;
        }
        fs::write(new.join("kernel.json"), serde_json::to_vec_pretty(kernel)?)?;
        fs::rename(&new, self.place(kernel)).context("move it to its place")
    }

    fn suite(&self, suite: Suite, update: bool) -> Listed {
        if let Some(listed) = self.read.borrow().get(suite.name)
            && (listed.fresh || !update)
        {
            return listed.clone();
        }
        let dir = self.dir.join("suites").join(suite.name);
        let listed = match remembered(&dir) {
            Some(kernels) if !update => Listed { fresh: false, kernels: Ok(kernels) },
            _ => {
                eprintln!("vm: reading the lists of {}", suite.name);
                let kernels = read(suite, &dir).map_err(|error| format!("{error:#}"));
                Listed { fresh: true, kernels }
            }
        };
        self.read.borrow_mut().insert(suite.name, listed.clone());
        listed
    }

    /// What is not found may be in a suite that could not be read.
    fn must_be_complete(&self) -> Result<()> {
        let read = self.read.borrow();
        let failed: Vec<_> =
            read.values().filter_map(|listed| listed.kernels.as_ref().err().cloned()).collect();
        if !failed.is_empty() {
            bail!("not all suites could be read: {}", failed.join("; "));
        }
        Ok(())
    }
}

fn age(kernel: &Kernel) -> Version {
    Version::of(&kernel.version)
}

fn remembered(dir: &Path) -> Option<Vec<Kernel>> {
    serde_json::from_slice(&fs::read(dir.join("kernels.json")).ok()?).ok()
}

fn read(suite: Suite, dir: &Path) -> Result<Vec<Kernel>> {
    let kernels = Apt::update(suite, dir)?.kernels(suite)?;
    fs::write(dir.join("kernels.json"), serde_json::to_vec_pretty(&kernels)?)?;
    Ok(kernels)
}

/// The first file below a directory whose name is such.
fn find(dir: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let entries: Vec<_> = fs::read_dir(dir).ok()?.filter_map(Result::ok).collect();
    entries.into_iter().find_map(|entry| {
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            return find(&path, is_it);
        }
        is_it(entry.file_name().to_str()?).then_some(path)
    })
}

/// A module's bytes, which newer packages compress.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let mut command = Command::new(tool);
    command.args(["--decompress", "--stdout"]).arg(path);
    let done = command.output().with_context(|| format!("run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(done.stdout)
}

/// Removes a directory in the end.
struct Remover<'a>(&'a Path);

impl Drop for Remover<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str, version: &str) -> Kernel {
        let (release, version) = (release.to_owned(), version.to_owned());
        Kernel { release, version, suite: String::new(), packages: Vec::new() }
    }

    #[test]
    fn a_version_means_its_own_kernels_only() {
        let kernel = kernel("6.1.0-56-cloud-amd64", "6.1.192-2");
        assert!(kernel.is("6.1") && kernel.is("6.1.0") && kernel.is("6.1.0-56-cloud-amd64"));
        assert!(!kernel.is("6.12") && !kernel.is("6.1.0-5") && !kernel.is("5.10"));
        assert_eq!(kernel.line(), "6.1");
    }

    #[test]
    fn newer_is_by_number_and_not_by_letter() {
        let old = kernel("6.12.90+deb12-cloud-amd64", "6.12.90-1~deb12u1");
        let new = kernel("6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1");
        assert!(age(&old) < age(&new));
    }

    #[test]
    fn packages_that_only_depend_on_the_newest_are_no_kernels() {
        assert_eq!(release_of("linux-image-6.12-cloud-amd64"), None);
        assert_eq!(release_of("linux-image-cloud-amd64"), None);
        assert_eq!(release_of("linux-base-7.3.4+deb13-cloud-amd64"), None);
        let release = Some("7.3.4+deb13-cloud-amd64");
        assert_eq!(release_of("linux-binary-7.3.4+deb13-cloud-amd64"), release);
        assert_eq!(release_of("linux-image-6.1.0-56-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
    }
}
