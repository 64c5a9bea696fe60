//! Rules of the architecture that the compiler does not check.

use std::{fs, path::Path};

/// The core must not touch the outside world.
const FORBIDDEN: [&str; 8] = [
    "tokio",
    "aya::",
    "std::fs",
    "std::net::Tcp",
    "Instant",
    "SystemTime",
    "crate::kernel",
    "println!",
];

#[test]
fn the_core_is_pure() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let mut files = 0;
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for word in FORBIDDEN {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
        files += 1;
    }
    assert!(files > 10, "only {files} files were looked at");
}
