//! Containers, as far as a cgroup path tells.
//!
//! Runtimes put their name and the container's id into the path, each in its own way; a bare id
//! names no runtime. Nothing is asked of a runtime, so this works without one. What Kubernetes calls
//! it is not in the path: the source adds that.

use std::fmt;

use super::comm::escape;

/// What a cgroup path says of the container it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Id, or name where the runtime uses that.
    pub id: String,
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `systemd-nspawn`; `None` if it is not told.
    pub runtime: Option<&'static str>,
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// What Kubernetes calls it; `None` if the kubelet's logs do not say.
    pub names: Option<Names>,
}

/// What Kubernetes calls a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it; `None` if it may be one of several.
    pub container: Option<String>,
}

/// What stands before the id in `<prefix>-<id>.scope` or `<prefix>-<id>`.
const PREFIXES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
];

/// Directories that hold containers by bare id or by name.
const PARENTS: [(&str, &str); 3] =
    [("docker", "docker"), ("lxc", "lxc"), ("libpod_parent", "podman")];

impl Container {
    /// The innermost container in a cgroup path, if any.
    pub fn from_cgroup(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let pod_uid = parts.iter().rev().find_map(|part| pod_uid(part));
        let named = (0..parts.len()).rev().find_map(|at| {
            let parent = at.checked_sub(1).map(|before| parts[before]);
            named(parts[at], parent)
        });
        let (id, runtime) = named?;
        Some(Self { id: escape(id.as_bytes()), runtime, pod_uid, names: None })
    }
}

/// The runtime of this name.
pub fn runtime(name: &str) -> Option<&'static str> {
    let known = PREFIXES.iter().chain(&PARENTS).map(|&(_, runtime)| runtime);
    known.chain(["systemd-nspawn"]).find(|runtime| *runtime == name)
}

fn named(part: &str, parent: Option<&str>) -> Option<(String, Option<&'static str>)> {
    let plain = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = plain.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id.to_owned(), Some(runtime)));
        }
    }
    for prefix in ["lxc.payload.", "lxc.monitor."] {
        if let Some(name) = plain.strip_prefix(prefix).filter(|name| !name.is_empty()) {
            return Some((name.to_owned(), Some("lxc")));
        }
    }
    let machine = part.strip_suffix(".scope").and_then(|part| part.strip_prefix("machine-"));
    if let Some(name) = machine.filter(|name| !name.starts_with("qemu")) {
        return Some((unescape(name), Some("systemd-nspawn")));
    }
    // containerd's cgroupfs driver on some hosts: `<slice>:cri-containerd:<id>`.
    let last = plain.rsplit(':').next().unwrap_or(plain);
    if plain.contains(":cri-containerd:") && is_id(last) {
        return Some((last.to_owned(), Some("containerd")));
    }
    let known =
        PARENTS.iter().find(|&&(name, _)| parent == Some(name)).map(|&(_, runtime)| runtime);
    if is_id(plain) || known == Some("lxc") {
        return Some((plain.to_owned(), known));
    }
    None
}

/// 64 hexadecimal digits; Amazon's agent appends a number to 32 of them.
fn is_id(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let numbered = text
        .split_once('-')
        .is_some_and(|(id, number)| id.len() == 32 && hex(id) && number.parse::<u64>().is_ok());
    text.len() == 64 && hex(text) || numbered
}

/// `pod<uid>` as a directory, or `kubepods-burstable-pod<uid_with_underscores>.slice`.
fn pod_uid(part: &str) -> Option<String> {
    const LENGTH: usize = 36;
    let plain = part.strip_suffix(".slice").unwrap_or(part);
    let at = if plain.starts_with("pod") { 0 } else { plain.rfind("-pod")? + 1 };
    let uid = plain[at + "pod".len()..].replace('_', "-");
    let is_uid = uid.len() == LENGTH && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        // Static pods have the hash of their manifest instead.
        || uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

/// systemd writes `-` in a unit's name as `\x2d`.
fn unescape(name: &str) -> String {
    name.replace("\\x2d", "-")
}

impl fmt::Display for Container {
    /// Runtime and the id's first twelve characters, as the runtimes' own tools show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHORT: usize = 12;
        let id = match self.id.char_indices().nth(SHORT) {
            Some((end, _)) if is_id(&self.id) => &self.id[..end],
            _ => &self.id,
        };
        match self.runtime {
            Some(runtime) => write!(f, "{runtime} {id}")?,
            None => write!(f, "container {id}")?,
        }
        match (&self.names, &self.pod_uid) {
            (Some(Names { namespace, pod, container: Some(name) }), _) => {
                write!(f, " ({name}) of pod {namespace}/{pod}")
            }
            (Some(Names { namespace, pod, container: None }), _) => {
                write!(f, " of pod {namespace}/{pod}")
            }
            (None, Some(uid)) => write!(f, " of pod {uid}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "c1b2a3d4-0000-1111-2222-333344445555";

    #[track_caller]
    fn check(path: &str, id: &str, runtime: Option<&'static str>, pod: Option<&str>) {
        let pod_uid = pod.map(str::to_owned);
        let expected = Container { id: id.to_owned(), runtime, pod_uid, names: None };
        assert_eq!(Container::from_cgroup(path), Some(expected), "{path}");
    }

    #[test]
    fn runtimes_name_themselves_in_the_path() {
        let slice = POD.replace('-', "_");
        let pod =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice");
        check(&format!("/system.slice/docker-{ID}.scope"), ID, Some("docker"), None);
        check(&format!("/docker/{ID}"), ID, Some("docker"), None);
        check(&format!("/docker/{ID}/init.scope"), ID, Some("docker"), None);
        check(&format!("{pod}/cri-containerd-{ID}.scope"), ID, Some("containerd"), Some(POD));
        check(&format!("{pod}/crio-{ID}.scope"), ID, Some("cri-o"), Some(POD));
        check(&format!("/kubepods/besteffort/pod{POD}/{ID}"), ID, None, Some(POD));
        check(
            &format!("/user.slice/user-1000.slice/libpod-{ID}.scope/container"),
            ID,
            Some("podman"),
            None,
        );
        check(&format!("/system.slice/x.slice:cri-containerd:{ID}"), ID, Some("containerd"), None);
        check(&format!("/ecs/task/{}-4", &ID[..32]), &format!("{}-4", &ID[..32]), None, None);
        check("/lxc/web", "web", Some("lxc"), None);
        check("/lxc.payload.web/system.slice/x.service", "web", Some("lxc"), None);
        check("/machine.slice/machine-a\\x2db.scope", "a-b", Some("systemd-nspawn"), None);
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "",
            "/",
            "/user.slice/user-0.slice/session-1.scope",
            "/system.slice/nginx.service",
            "/init.scope",
        ] {
            assert_eq!(Container::from_cgroup(path), None, "{path}");
        }
    }

    #[test]
    fn it_is_shown_as_runtimes_show_it() {
        let container = Container::from_cgroup(&format!("/docker/{ID}")).unwrap();
        assert_eq!(container.to_string(), "docker 0123456789ab");
    }

    #[test]
    fn a_pod_goes_by_its_name_where_that_is_known() {
        let path = format!("/kubepods/besteffort/pod{POD}/{ID}");
        let mut container = Container::from_cgroup(&path).unwrap();
        assert_eq!(container.to_string(), format!("container 0123456789ab of pod {POD}"));
        let mut names =
            Names { namespace: "shop".to_owned(), pod: "cart-0".to_owned(), container: None };
        container.names = Some(names.clone());
        assert_eq!(container.to_string(), "container 0123456789ab of pod shop/cart-0");
        names.container = Some("app".to_owned());
        container.names = Some(names);
        assert_eq!(container.to_string(), "container 0123456789ab (app) of pod shop/cart-0");
    }
}
