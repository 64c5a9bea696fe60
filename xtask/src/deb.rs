//! The Debian package: what is put into it beside the program, and whether it is as a package should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{cache, exec, output, root};

/// What the package holds, a path a line.
const CONTENTS: &str = "deploy/debian/contents";
const TRY: &str = include_str!("deb/try.sh");
/// Documents of the tree that go with it.
const DOCUMENTS: [&str; 8] = [
    "docs/fleet.md",
    "docs/kernels.md",
    "docs/leaks.md",
    "docs/notify.md",
    "docs/privileges.md",
    "docs/recordings.md",
    "docs/top.md",
    "docs/trace-format.md",
];

/// What cargo says of the crates of the program.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Builds it, and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let directory = root().join("target/deb");
    let _ = fs::remove_dir_all(&directory);
    let documents = directory.join("doc");
    fs::create_dir_all(&documents).with_context(|| format!("make {}", documents.display()))?;
    let cargo =
        |arguments: &[&str]| exec(Command::new("cargo").current_dir(root()).args(arguments));
    cargo(&["build", "--quiet", "--locked", "--release", "--package", "tcpwatch"])?;
    // As the tests build it: in release its dependencies would be built once more.
    let man = ["run", "--quiet", "--locked", "--package", "tcpwatch", "--example", "man"];
    cargo(&[&man[..], &["--", "target/deb/man"]].concat())?;
    compress(&fs::read(root().join("CHANGELOG.md"))?, &documents.join("changelog"))?;
    compress(third_party()?.as_bytes(), &documents.join("third-party"))?;
    for document in DOCUMENTS {
        let path = root().join(document);
        let name = path.file_name().context("it has a name")?;
        compress(&fs::read(&path).context(document)?, &documents.join(name))?;
    }
    exec(
        Command::new(cache()?.join("tools/bin/cargo-deb"))
            .current_dir(root())
            .args(["--quiet", "--locked", "--no-build", "--package", "tcpwatch"])
            .args(["--output", "target/deb/"]),
    )?;
    let made: Vec<_> = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    match &made[..] {
        [package] => Ok(package.clone()),
        _ => bail!("cargo-deb made {} packages", made.len()),
    }
}

/// Fails if anything is wrong with the package: by lintian, by what is in it, by what dpkg does with it.
pub(crate) fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("it is installed on an overlay, which takes root");
    }
    let package = build()?;
    exec(
        Command::new("lintian")
            .args(["--allow-root", "--no-cfg", "--fail-on", "error,warning"])
            .arg(&package),
    )?;
    contents(&package)?;
    let said = output(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", TRY, "try.sh"])
            .arg(&package)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    if let Some(left) = said.lines().find(|line| line.starts_with("left behind: ")) {
        bail!("{said}\n{left}");
    }
    println!("{}: installs, works and is removed", package.display());
    Ok(())
}

fn contents(package: &Path) -> Result<()> {
    let tar = output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let now: BTreeSet<&str> = tar
        .lines()
        .filter(|line| !line.starts_with('d'))
        .filter_map(|line| line.split_whitespace().last()?.strip_prefix('.'))
        .collect();
    let said = fs::read_to_string(root().join(CONTENTS)).context(CONTENTS)?;
    let said: BTreeSet<&str> = said.lines().collect();
    if now != said {
        let more: Vec<_> = now.difference(&said).collect();
        let less: Vec<_> = said.difference(&now).collect();
        bail!("the package has {more:?} and not {less:?}, which {CONTENTS} says otherwise");
    }
    Ok(())
}

/// Without a time, so that the same tree makes the same bytes.
fn compress(bytes: &[u8], plain: &Path) -> Result<()> {
    fs::write(plain, bytes).with_context(|| format!("write {}", plain.display()))?;
    exec(Command::new("gzip").args(["--force", "--best", "--no-name"]).arg(plain))
}

/// Licences and notices of what is linked into the program, each text once.
fn third_party() -> Result<String> {
    let metadata = output(Command::new("cargo").current_dir(root()).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("read cargo metadata")?;
    let linked = linked(&metadata);
    let mut names = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.packages.iter().filter(|package| linked.contains(&package.id[..])) {
        if package.source.is_none() {
            continue;
        }
        let name = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref().unwrap_or("see its text");
        writeln!(names, "{name}: {license}")?;
        for text in notices(package)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut page = format!("Libraries that tcpwatch is linked with:\n\n{names}");
    for (text, names) in texts {
        write!(page, "\n\n==== {}\n\n{text}", names.join(", "))?;
    }
    Ok(page)
}

/// Crates that the program needs when it runs, by id.
fn linked(metadata: &Metadata) -> BTreeSet<&str> {
    let nodes: BTreeMap<_, _> =
        metadata.resolve.nodes.iter().map(|node| (&node.id[..], &node.deps)).collect();
    let own = metadata.packages.iter().filter(|package| package.name == "tcpwatch");
    let mut rest: Vec<&str> = own.map(|package| &package.id[..]).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = rest.pop() {
        if !linked.insert(id) {
            continue;
        }
        let needed = nodes.get(id).into_iter().copied().flatten();
        let normal = needed.filter(|one| one.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        rest.extend(normal.map(|one| &one.pkg[..]));
    }
    linked
}

fn notices(package: &Package) -> Result<Vec<String>> {
    let directory = package.manifest_path.parent().context("a manifest is in a directory")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let begins = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if path.is_file() && begins.iter().any(|begin| name.starts_with(begin)) {
            texts.push(String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    texts.sort();
    Ok(texts)
}
