//! The Kubernetes manifests, held to Kubernetes' own schema.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{cache, root, target_dir};

const MANIFEST: &str = "deploy/kubernetes/tcpwatch.yaml";
/// The oldest version that has every field of it, and one that is new.
const VERSIONS: [&str; 2] = ["1.30.0", "1.37.0"];
/// Fields that are there, and mistakes that a schema must find.
const MISTAKES: [(&str, &str); 3] = [
    ("readOnlyRootFilesystem: true", "readonlyRootFilesystem: true"),
    ("hostPID: true", "hostPID: \"yes\""),
    ("clusterIP: None", "clusterIp: None"),
];

/// Fails if a field is not known to Kubernetes, or has a value that it does not take.
pub(crate) fn check() -> Result<()> {
    let path = root().join(MANIFEST);
    for version in VERSIONS {
        validate(&path, version)?;
    }
    let text = fs::read_to_string(&path).context(MANIFEST)?;
    let directory = target_dir().join("xtask");
    fs::create_dir_all(&directory).context("make a place for copies of the manifest")?;
    let copy = directory.join("wrong.yaml");
    for (right, wrong) in MISTAKES {
        if !text.contains(right) {
            bail!("{MANIFEST} has no '{right}'");
        }
        fs::write(&copy, text.replace(right, wrong)).context("copy the manifest")?;
        if validate(&copy, VERSIONS[1]).is_ok() {
            bail!("the schema takes '{wrong}'");
        }
    }
    println!("{MANIFEST}: as Kubernetes {} have it", VERSIONS.join(" and "));
    Ok(())
}

fn validate(path: &Path, version: &str) -> Result<()> {
    let program = cache()?.join("kubernetes/bin/kubernetes-validate");
    let output = Command::new(&program)
        .args(["--strict", "--kubernetes-version", version])
        .arg(path)
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} and Kubernetes {version}: {}", path.display(), String::from_utf8_lossy(&said));
    }
    Ok(())
}
