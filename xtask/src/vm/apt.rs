//! What kernels a suite of Debian has, asked of apt with sources and a state of its own.
//!
//! The mirror is the one that this machine's apt is configured with, so nothing of the project says
//! where it is. Nothing in `/etc` or `/var/lib/apt` is changed, and root is not needed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::kernels::{Kernel, Version, release_of};
use crate::output;

/// Debian's own keys, as apt comes with them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What a kernel may be made of: newer ones come in several packages.
const PARTS: &str = "^linux-(image|binary|modules)-[0-9].*-cloud-amd64$";

/// A part of Debian's archive that has kernels.
#[derive(Clone, Copy)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// Its newest kernels are in the security archive.
    pub(super) security: bool,
}

/// An apt that knows one suite alone.
pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Makes its files in a directory, and fetches the suite's lists.
    pub(super) fn update(suite: Suite, dir: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))
                .with_context(|| format!("create {}", dir.join(part).display()))?;
        }
        let apt = Self { dir: dir.to_owned() };
        fs::write(dir.join("sources.list"), sources(suite)?)?;
        fs::write(apt.config(), configuration(dir))?;
        output(apt.command("apt-get").args(["update", "--quiet", "--error-on=any"]))
            .with_context(|| format!("read the lists of {}", suite.name))?;
        Ok(apt)
    }

    /// One that has been made before.
    pub(super) fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The cloud kernels, those with the smallest set of drivers.
    pub(super) fn kernels(&self, suite: Suite) -> Result<Vec<Kernel>> {
        let found = output(self.command("apt-cache").args(["search", "--names-only", PARTS]))?;
        let names: Vec<_> = found.lines().filter_map(|line| line.split(' ').next()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let shown = output(self.command("apt-cache").arg("show").args(names))?;
        let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
        for (name, version) in newest_of_each(&shown) {
            let Some(release) = release_of(&name) else { continue };
            let kernel = kernels.entry(release.to_owned()).or_insert_with(|| Kernel {
                release: release.to_owned(),
                version: version.clone(),
                suite: suite.name.to_owned(),
                packages: Vec::new(),
            });
            kernel.packages.push(format!("{name}={version}"));
        }
        Ok(kernels.into_values().collect())
    }

    /// Downloads packages into a directory; apt checks them against the signed lists.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.current_dir(into).args(["download", "--quiet"]).args(packages);
        output(&mut command).map(drop)
    }

    fn config(&self) -> PathBuf {
        self.dir.join("apt.conf")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.config());
        command
    }
}

/// Packages and their newest versions, of what `apt-cache show` prints.
fn newest_of_each(shown: &str) -> BTreeMap<String, String> {
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    let (mut package, mut version) = (None, None);
    for line in shown.lines().chain([""]) {
        if let Some(name) = line.strip_prefix("Package: ") {
            package = Some(name.to_owned());
        } else if let Some(text) = line.strip_prefix("Version: ") {
            version = Some(text.to_owned());
        } else if line.is_empty()
            && let (Some(package), Some(version)) = (package.take(), version.take())
        {
            let known = newest.entry(package).or_insert_with(|| version.clone());
            if Version::of(known) < Version::of(&version) {
                *known = version;
            }
        }
    }
    newest
}

/// The suite's sources, at the mirrors that this machine uses.
fn sources(suite: Suite) -> Result<String> {
    let format = "$(REPO_URI) $(RELEASE)";
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--no-release-info", "--format", format, "Created-By: Packages"]);
    let targets = output(&mut apt).context("ask apt for this machine's mirror")?;
    let mirror = |security: bool| {
        let of_security = |release: &str| release.ends_with("-security");
        targets
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(_, release)| of_security(release) == security)
            .map(|(uri, _)| uri)
    };
    let options = if Path::new(KEYRING).exists() {
        format!("[targets=Packages signed-by={KEYRING}]")
    } else {
        "[targets=Packages]".to_owned()
    };
    let name = suite.name;
    let Some(main) = mirror(false) else {
        bail!("apt has no source on this machine: kernels come from the mirror that it uses");
    };
    let security = mirror(true).filter(|_| suite.security);
    let security = security.map(|uri| format!("deb {options} {uri} {name}-security main\n"));
    Ok(format!("deb {options} {main} {name} main\n{}", security.unwrap_or_default()))
}

/// Read after the machine's own configuration, of which proxies and the like stay.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Dir::Etc::sourcelist \"{dir}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::Etc::preferences \"-\";\n\
         Dir::Etc::preferencesparts \"-\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         APT::Sandbox::User \"\";\n\
         APT::Architecture \"amd64\";\n\
         #clear APT::Architectures;\n\
         #clear APT::Update;\n\
         Acquire::PDiffs \"false\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::Languages \"none\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_versions_the_newest_counts() {
        let shown = "Package: linux-image-6.1.0-56\nVersion: 6.1.9-1\nDepends: a,\n b\n\n\
                     Package: linux-image-6.1.0-56\nVersion: 6.1.10-1\n\n\
                     Package: linux-image-6.1.0-56\nVersion: 6.1.2-1\n";
        let newest = newest_of_each(shown);
        assert_eq!(
            newest.into_iter().collect::<Vec<_>>(),
            [("linux-image-6.1.0-56".to_owned(), "6.1.10-1".to_owned())]
        );
    }
}
