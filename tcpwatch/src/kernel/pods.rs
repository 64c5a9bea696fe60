//! What Kubernetes calls containers, from the names of the files in which the kubelet keeps their logs.
//!
//! ```text
//! /var/log/containers/<pod>_<namespace>_<container>-<id>.log   links: exact, unless a long name cut off the id
//! /var/log/pods/<namespace>_<pod>_<uid>/<container>/           of the pod; its container, if there is but one
//! ```
//!
//! Directories are listed, nothing in them is opened and no link is followed: no API server, no runtime
//! and no file of a pod is needed. Names are whatever somebody put there, so they are escaped.

use std::{
    cell::OnceCell,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;

use crate::core::{
    comm::escape,
    container::{Container, Names},
};

/// Where the two directories are, if not in `/var/log`.
const VARIABLE: &str = "TCPWATCH_POD_LOGS";
const LOGS: &str = "/var/log";
/// Entries looked at in a directory; a host has hundreds.
const MOST: usize = 65_536;

/// The directories as they are now: read when first asked for, then not again.
pub(super) struct Pods {
    logs: PathBuf,
    by_id: OnceCell<FxHashMap<Vec<u8>, Names>>,
    by_uid: OnceCell<FxHashMap<Vec<u8>, (Names, PathBuf)>>,
}

impl Pods {
    /// Those of this host.
    pub(super) fn here() -> Self {
        Self::below(std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(LOGS), PathBuf::from))
    }

    fn below(logs: PathBuf) -> Self {
        Self { logs, by_id: OnceCell::new(), by_uid: OnceCell::new() }
    }

    /// A container with what Kubernetes calls it, if that is to be found.
    pub(super) fn named(&self, container: Container) -> Container {
        let names = self.by_id(&container.id).or_else(|| self.by_pod(container.pod_uid.as_ref()?));
        Container { names, ..container }
    }

    fn by_id(&self, id: &str) -> Option<Names> {
        let containers = self.by_id.get_or_init(|| {
            let names = list(&self.logs.join("containers"));
            names.filter_map(|name| linked(name.as_bytes())).collect()
        });
        containers.get(id.as_bytes()).cloned()
    }

    fn by_pod(&self, uid: &str) -> Option<Names> {
        let pods = self.by_uid.get_or_init(|| {
            let logs = self.logs.join("pods");
            let names = list(&logs);
            names
                .filter_map(|name| {
                    let [namespace, pod, uid] = parts(name.as_bytes())?;
                    let names =
                        Names { namespace: escape(namespace), pod: escape(pod), container: None };
                    Some((uid.to_vec(), (names, logs.join(&name))))
                })
                .collect()
        });
        let (names, directory) = pods.get(uid.as_bytes())?;
        let mut containers = list(directory);
        let only = containers.next().filter(|_| containers.next().is_none());
        Some(Names { container: only.map(|name| escape(name.as_bytes())), ..names.clone() })
    }
}

/// `<pod>_<namespace>_<container>-<id>.log`, by id.
fn linked(name: &[u8]) -> Option<(Vec<u8>, Names)> {
    let name = name.strip_suffix(b".log")?;
    let dash = name.iter().rposition(|&byte| byte == b'-')?;
    let [pod, namespace, container] = parts(&name[..dash])?;
    let names = Names {
        namespace: escape(namespace),
        pod: escape(pod),
        container: Some(escape(container)),
    };
    Some((name[dash + 1..].to_vec(), names))
}

/// Names in Kubernetes have no underscore.
fn parts(name: &[u8]) -> Option<[&[u8]; 3]> {
    let mut parts = name.split(|&byte| byte == b'_').filter(|part| !part.is_empty());
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

/// What is in a directory; nothing if it cannot be read.
fn list(directory: &Path) -> impl Iterator<Item = OsString> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MOST);
    entries.map(|entry| entry.file_name())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "c1b2a3d4-0000-1111-2222-333344445555";

    fn container(pod_uid: Option<&str>) -> Container {
        let pod_uid = pod_uid.map(str::to_owned);
        Container { id: ID.to_owned(), runtime: Some("containerd"), pod_uid, names: None }
    }

    /// What it is called where these directories exist.
    fn named(directories: &[&[u8]], container: Container) -> Option<(String, String, String)> {
        let logs = tempfile::tempdir().unwrap();
        for directory in directories {
            let path = logs.path().join(OsString::from_vec(directory.to_vec()));
            fs::create_dir_all(path).unwrap();
        }
        let names = Pods::below(logs.path().to_owned()).named(container).names?;
        Some((names.namespace, names.pod, names.container.unwrap_or_default()))
    }

    fn called(namespace: &str, pod: &str, name: &str) -> (String, String, String) {
        (namespace.to_owned(), pod.to_owned(), name.to_owned())
    }

    #[test]
    fn the_link_with_its_id_names_a_container() {
        let link = format!("containers/cart-7d9f_shop_app-server-{ID}.log");
        let pod = format!("pods/shop_cart-7d9f_{POD}/proxy");
        let tree = [link.as_bytes(), pod.as_bytes()];
        assert_eq!(
            named(&tree, container(Some(POD))),
            Some(called("shop", "cart-7d9f", "app-server"))
        );
        assert_eq!(named(&tree, container(None)), Some(called("shop", "cart-7d9f", "app-server")));
    }

    #[test]
    fn the_directory_with_its_uid_names_a_pod_and_its_only_container() {
        let app = format!("pods/shop_cart-0_{POD}/app");
        assert_eq!(
            named(&[app.as_bytes()], container(Some(POD))),
            Some(called("shop", "cart-0", "app"))
        );
        let proxy = format!("pods/shop_cart-0_{POD}/proxy");
        let both = [app.as_bytes(), proxy.as_bytes()];
        assert_eq!(named(&both, container(Some(POD))), Some(called("shop", "cart-0", "")));
        // The hash of a manifest instead of a uid.
        let hash = "33d556edd3ae8ef21980288cef77ae8b";
        let etcd = format!("pods/kube-system_etcd-node_{hash}/etcd");
        assert_eq!(
            named(&[etcd.as_bytes()], container(Some(hash))),
            Some(called("kube-system", "etcd-node", "etcd"))
        );
    }

    #[test]
    fn what_is_not_there_has_no_name() {
        assert_eq!(named(&[], container(Some(POD))), None);
        let other = format!("pods/shop_cart-0_{}/app", POD.replace('c', "d"));
        assert_eq!(named(&[other.as_bytes()], container(Some(POD))), None);
        for odd in ["pods/a_b", "pods/a_b_c_d", "pods/___", "containers/a.log", "containers/-.log"]
        {
            assert_eq!(named(&[odd.as_bytes()], container(Some(POD))), None, "{odd}");
        }
    }

    #[test]
    fn names_are_made_harmless() {
        let mut link = b"containers/ca\x1b[2Jt_sh\nop_a\"\xff-".to_vec();
        link.extend([ID.as_bytes(), b".log"].concat());
        assert_eq!(
            named(&[&link], container(None)),
            Some(called("sh\\x0aop", "ca\\x1b[2Jt", "a\"\\xff"))
        );
    }
}
