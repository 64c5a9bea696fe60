//! Why root may not: tcpwatch has given up the right to read and write everywhere before it opens
//! what the user named.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// Says it in the error, where that is why.
pub fn explain(error: io::Error, path: &Path) -> io::Error {
    let owner = match owner_in_the_way(path) {
        Some(owner) if error.kind() == io::ErrorKind::PermissionDenied && geteuid().is_root() => {
            owner
        }
        _ => return error,
    };
    let message = format!(
        "{error}: user {owner} owns it or its directory, and tcpwatch has given up root's right to override that; use a directory of root's such as /var/tmp, or run tcpwatch as that user"
    );
    io::Error::new(error.kind(), message)
}

/// Who else than root owns the file, or the nearest directory above it that is there.
fn owner_in_the_way(path: &Path) -> Option<u32> {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let owner = path.ancestors().find_map(|path| fs::metadata(path).ok())?.uid();
    (owner != 0).then_some(owner)
}
