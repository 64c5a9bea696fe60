//! The core touches nothing outside: no clock, no file, no socket, no other part of this crate.
//!
//! The source is read as tokens, macros included. Each path is written out in full, whatever it was
//! imported, grouped or renamed as, and then it must be on the list of what the core may use.

use std::{collections::HashMap, fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::invariants::sources;

/// Modules and items of `std` that read and write memory only.
const STD: [&str; 33] = [
    "any",
    "array",
    "borrow",
    "cell",
    "char",
    "clone",
    "cmp",
    "collections",
    "convert",
    "default",
    "error",
    "ffi::OsStr",
    "fmt",
    "hash",
    "io::Error",
    "io::ErrorKind",
    "io::Result",
    "iter",
    "marker",
    "mem",
    "net::IpAddr",
    "net::Ipv4Addr",
    "net::Ipv6Addr",
    "net::SocketAddr",
    "num",
    "ops",
    "option",
    "result",
    "slice",
    "str",
    "string",
    "sync::Arc",
    "time::Duration",
];

/// Crates that do nothing but compute.
const CRATES: [&str; 2] = ["rustc_hash", "tcpwatch_common"];

/// Macros that reach out without a path.
const MACROS: [&str; 9] = [
    "println",
    "print",
    "eprintln",
    "eprint",
    "dbg",
    "include",
    "include_str",
    "env",
    "option_env",
];

/// One path as it is written.
#[derive(Debug, Default)]
struct Written {
    segments: Vec<String>,
    /// What an import calls it; `None` outside of imports.
    name: Option<String>,
}

/// All paths of a source text, and what else reaches out.
#[derive(Default)]
struct Source {
    paths: Vec<Written>,
    forbidden: Vec<String>,
}

impl Source {
    fn read(tokens: TokenStream) -> Self {
        let mut source = Self::default();
        source.walk(&tokens.into_iter().collect::<Vec<_>>());
        source
    }

    fn walk(&mut self, tokens: &[TokenTree]) {
        let mut rest = tokens;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    if is(inner.first(), "path") && is_punct(inner.get(1), '=') {
                        self.forbidden.push("#[path]".to_owned());
                    }
                    self.walk(&inner);
                }
                TokenTree::Ident(word) if word == "use" => {
                    rest = self.path(&[], skip_colons(rest), true);
                }
                TokenTree::Ident(word) if word == "extern" && is(rest.first(), "crate") => {
                    self.forbidden.push("extern crate".to_owned());
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    if is_punct(rest.first(), '!') && MACROS.contains(&&word[..]) {
                        self.forbidden.push(format!("{word}!"));
                    }
                    let start = tokens.len() - rest.len() - 1;
                    rest = self.path(&[], &tokens[start..], false);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Reads one path, or a tree of them, and returns what comes after it.
    fn path<'a>(
        &mut self,
        prefix: &[String],
        mut rest: &'a [TokenTree],
        import: bool,
    ) -> &'a [TokenTree] {
        let mut segments = prefix.to_vec();
        loop {
            match rest.first() {
                Some(TokenTree::Ident(word)) => segments.push(word.to_string()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' && import => {
                    segments.push("*".to_owned());
                }
                Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Brace && import =>
                {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let mut inner = &inner[..];
                    while !inner.is_empty() {
                        inner = self.path(&segments, skip_colons(inner), true);
                        inner = inner.get(usize::from(is_punct(inner.first(), ','))..).unwrap();
                    }
                    return &rest[1..];
                }
                _ => break,
            }
            rest = &rest[1..];
            let after = skip_colons(rest);
            if after.len() == rest.len() {
                break;
            }
            // Outside of imports `::` may come before `<`.
            let goes_on = import || matches!(after.first(), Some(TokenTree::Ident(_)));
            if !goes_on {
                break;
            }
            rest = after;
        }
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut name = segments.last().cloned().filter(|_| import);
        if import && is(rest.first(), "as") {
            name = rest.get(1).map(ToString::to_string);
            rest = rest.get(2..).unwrap_or_default();
        }
        // A single word outside of imports is a variable, or something that was imported.
        if import || segments.len() > 1 {
            self.paths.push(Written { segments, name });
        }
        rest
    }

    /// What the core may not use, written out in full.
    fn violations(mut self, dependencies: &[String]) -> Vec<String> {
        let imports: HashMap<&str, &[String]> = self
            .paths
            .iter()
            .filter_map(|path| Some((path.name.as_deref()?, &path.segments[..])))
            .collect();
        let full = self.paths.iter().map(|path| {
            let mut full = path.segments.clone();
            for _ in 0..4 {
                let Some(&there) = full.first().and_then(|root| imports.get(&root[..])) else {
                    break;
                };
                if there.first() == full.first() {
                    break;
                }
                full.splice(..1, there.iter().cloned());
            }
            full
        });
        let bad = full.filter(|path| !is_allowed(path, dependencies));
        let bad: Vec<_> = bad.map(|path| path.join("::")).collect();
        self.forbidden.extend(bad);
        self.forbidden
    }
}

fn is(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn is_punct(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn skip_colons(tokens: &[TokenTree]) -> &[TokenTree] {
    let colons = is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':');
    if colons { &tokens[2..] } else { tokens }
}

fn is_allowed(path: &[String], dependencies: &[String]) -> bool {
    let segments: Vec<_> = path.iter().map(String::as_str).collect();
    match segments[..] {
        // What an import of these names alone leads to is written out where it is used.
        [] | ["std" | "core" | "alloc" | "crate" | "super"] => true,
        ["std" | "core" | "alloc", ref rest @ ..] => {
            let rest = rest.join("::");
            let is_module = STD.iter().any(|item| item.starts_with(&format!("{rest}::")));
            let within = |item: &&str| rest == **item || rest.starts_with(&format!("{item}::"));
            is_module || STD.iter().any(within)
        }
        ["crate", part, ..] => part == "core",
        ["super", "super", ..] => false,
        [root, ..] => CRATES.contains(&root) || !dependencies.iter().any(|name| name == root),
    }
}

/// The crates that this one may use, as paths name them.
fn dependencies() -> Vec<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let sections = text.split("\n[").filter(|section| section.contains("dependencies]"));
    let names = sections.flat_map(str::lines).filter_map(|line| line.split_once([' ', '.', '=']));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

fn violations(text: &str) -> Vec<String> {
    Source::read(text.parse().unwrap()).violations(&dependencies())
}

#[test]
fn the_core_is_pure() {
    let files = sources("src/core");
    for path in &files {
        let found = violations(&fs::read_to_string(path).unwrap());
        assert!(found.is_empty(), "{path:?} uses {found:?}");
    }
    assert!(files.len() > 10, "only {} files were looked at", files.len());
}

#[test]
fn whatever_reaches_out_is_found_however_it_is_written() {
    let reaches_out = [
        "use std::fs;",
        "use std::fs::File;",
        "use std::{collections::BTreeMap, fs::{self, File}};",
        "use std::{net::{IpAddr, TcpStream}};",
        "use std::time::Instant as Moment;",
        "use std as s; fn f() { s::fs::read(\"x\"); }",
        "use std::time; fn f() -> time::Instant { time::Instant::now() }",
        "use std::{time as t}; fn f() { t::SystemTime::now(); }",
        "use std::io; fn f() { io::stdout(); }",
        "use std::io::*;",
        "use std::*;",
        "fn f() { ::std::env::var(\"x\"); }",
        "fn f() { let _ = Vec::<std::process::Command>::new(); }",
        "type T = std::net::UdpSocket;",
        "fn f() { assert!(std::path::Path::new(\"x\").exists()); }",
        "use core::time; use time::*;",
        "use std::net::ToSocketAddrs;",
        "fn f() { std::thread::spawn(|| ()); }",
        "use tokio::time::sleep;",
        "use {aya::Ebpf, rustc_hash::FxHashMap};",
        "fn f() { libc::getpid(); }",
        "use rustix as harmless; fn f() { harmless::process::getpid(); }",
        "use crate::kernel::clock;",
        "use crate::{core::time::Nanos, kernel};",
        "use crate as c; fn f() { c::kernel::clock::now(); }",
        "use super::super::kernel;",
        "use crate::*;",
        "extern crate libc;",
        "#[path = \"../kernel/clock.rs\"] mod clock;",
        "fn f() { println!(\"x\"); }",
        "macro_rules! m { () => { std::fs::read(\"x\") } }",
    ];
    for text in reaches_out {
        assert!(!violations(text).is_empty(), "{text} is not found");
    }
}

#[test]
fn what_only_computes_is_left_alone() {
    let computes = [
        "use std::{collections::{BTreeMap, VecDeque}, fmt, io, net::SocketAddr, sync::Arc};",
        "use std::io; fn f() -> io::Result<()> { Ok(()) }",
        "use std::time::Duration; use super::time::{Nanos, Timestamp};",
        "use rustc_hash::FxHashMap; use tcpwatch_common::COMM_LEN; use crate::core::time::Nanos;",
        "fn f(x: u64) -> u32 { let fs = x as u32; fs.min(u32::MAX) }",
        "/// See `std::fs`.\nfn f() { let _ = \"std::fs\"; let _ = Verdict::ALL; }",
    ];
    for text in computes {
        assert_eq!(violations(text), Vec::<String>::new(), "{text}");
    }
}
