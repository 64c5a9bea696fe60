//! Rules of the architecture that the compiler does not check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Source files below a directory.
pub(crate) fn sources(directory: &str) -> Vec<PathBuf> {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// A name may hold escape sequences: `comm::shown` shows it without.
#[test]
fn names_of_files_are_escaped() {
    let files = sources("src");
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains(".display()"), "{path:?} shows a name as it is");
    }
    assert!(files.len() > 100, "only {} files were looked at", files.len());
}
