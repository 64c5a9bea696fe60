//! A reader for the kernel's type information, as far as struct offsets need it.
//!
//! `/sys/kernel/btf/vmlinux` holds every type of the running kernel
//! (Documentation/bpf/btf.rst): a 24-byte header, types one after another, then strings. Input
//! is checked, never trusted: any bytes give an answer or an error.

use std::{io, path::Path};

use rustc_hash::FxHashMap;

use crate::core::comm;

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;
/// How deep anonymous members and typedefs may nest.
const DEEPEST: u32 = 16;

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing is mounted where the file is.
    #[error(
        "/sys is not mounted here, where the kernel describes its types ({path}); as root: mount -t sysfs sysfs /sys"
    )]
    NotMounted {
        /// Which file.
        path: String,
    },
    /// The kernel was built without.
    #[error(
        "there is no {path}: the kernel does not describe its types (CONFIG_DEBUG_INFO_BTF); tcpwatch needs Linux 5.15 or newer with BTF"
    )]
    Missing {
        /// Which file.
        path: String,
    },
    /// The contents are not BTF.
    #[error("{0} is not BTF: {1}")]
    Format(String, &'static str),
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u32,
    /// Bytes it takes.
    pub size: u32,
}

/// The kernel's types.
pub struct Btf {
    data: Vec<u8>,
    /// Position of each type; type 1 comes first.
    types: Vec<u32>,
    strings: usize,
}

impl Btf {
    /// Reads a BTF file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let shown = comm::shown(path);
        let data = std::fs::read(path).map_err(|source| {
            let path = shown.clone();
            match source.kind() {
                io::ErrorKind::NotFound if !Path::new("/sys/kernel").exists() => {
                    BtfError::NotMounted { path }
                }
                io::ErrorKind::NotFound => BtfError::Missing { path },
                _ => BtfError::Read { path, source },
            }
        })?;
        Self::parse(data).map_err(|why| BtfError::Format(shown, why))
    }

    /// Takes BTF from memory.
    pub fn parse(data: Vec<u8>) -> Result<Self, &'static str> {
        let word = |at: usize| word(&data, at);
        let magic = data.get(..2).ok_or("it is too short")?;
        if u16::from_ne_bytes([magic[0], magic[1]]) != MAGIC {
            return Err("the magic number is missing");
        }
        let header = word(4).ok_or("it is too short")? as usize;
        let field = |at| word(at).map(|value| value as usize).ok_or("the header is cut");
        let (types_at, types_len) = (header + field(8)?, field(12)?);
        let strings = header + field(16)?;
        let end = types_at.checked_add(types_len).filter(|&end| end <= data.len());
        let end = end.ok_or("the type section is cut")?;
        let mut types = Vec::new();
        let mut at = types_at;
        while at < end {
            let info = word(at + 4).ok_or("a type is cut")?;
            types.push(u32::try_from(at).map_err(|_| "it is too large")?);
            at += 12
                + trailing(kind(info), vlen(info)).ok_or("it has a kind of type we do not know")?;
        }
        Ok(Self { data, types, strings })
    }

    /// Where the structs of these names are, found in one go: there are some hundred thousand types.
    pub fn structs<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
    ) -> FxHashMap<&'n str, Vec<u32>> {
        let mut found: FxHashMap<&str, Vec<u32>> = names.map(|name| (name, Vec::new())).collect();
        for id in 1..=u32::try_from(self.types.len()).unwrap_or(u32::MAX) {
            let name = self
                .info(id)
                .filter(|&info| kind(info) == STRUCT)
                .and_then(|_| word(&self.data, self.at(id)?))
                .and_then(|at| std::str::from_utf8(self.string(at)).ok());
            if let Some(ids) = name.and_then(|name| found.get_mut(name)) {
                ids.push(id);
            }
        }
        found
    }

    /// The member at `path` of one of these structs.
    pub fn member_of(&self, structs: &[u32], path: &str) -> Option<Member> {
        structs.iter().find_map(|&id| self.walk(id, path))
    }

    /// The member at `path` of a struct: names separated by dots; anonymous members are looked
    /// through.
    pub fn member(&self, structure: &str, path: &str) -> Option<Member> {
        self.named(STRUCT, structure).find_map(|id| self.walk(id, path))
    }

    /// Whether a struct exists.
    pub fn has_struct(&self, name: &str) -> bool {
        self.named(STRUCT, name).next().is_some()
    }

    /// How many parameters a function has.
    pub fn parameters(&self, function: &str) -> Option<u32> {
        let id = self.named(FUNC, function).next()?;
        let proto = self.third(id)?;
        let info = self.info(proto)?;
        (kind(info) == FUNC_PROTO).then(|| vlen(info))
    }

    /// Whether a function exists.
    pub fn has_function(&self, name: &str) -> bool {
        self.named(FUNC, name).next().is_some()
    }

    /// Whether a type definition exists.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.named(TYPEDEF, name).next().is_some()
    }

    fn walk(&self, structure: u32, path: &str) -> Option<Member> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let (offset, member) = self.find(structure, name, DEEPEST)?;
        match rest {
            None => Some(Member { offset, size: self.size(member, DEEPEST)? }),
            Some(rest) => {
                let inner = self.walk(self.resolve(member, DEEPEST)?, rest)?;
                Some(Member { offset: offset + inner.offset, size: inner.size })
            }
        }
    }

    /// Offset and type of a member, also inside anonymous members.
    fn find(&self, structure: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let info = self.info(structure)?;
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        let has_bitfields = info >> 31 == 1;
        let base = self.at(structure)? + 12;
        for index in 0..vlen(info) as usize {
            let at = base + index * 12;
            let member_name = word(&self.data, at)?;
            let member_type = word(&self.data, at + 4)?;
            let bits = word(&self.data, at + 8)?;
            let is_bitfield = has_bitfields && bits >> 24 != 0;
            let bits = if has_bitfields { bits & 0x00ff_ffff } else { bits };
            if self.is_named(member_name, name) {
                return (!is_bitfield && bits % 8 == 0).then_some((bits / 8, member_type));
            }
            if member_name == 0
                && let Some(inner) = self.resolve(member_type, DEEPEST)
                && let Some((offset, found)) = self.find(inner, name, depth)
            {
                return Some((bits / 8 + offset, found));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32, depth: u32) -> Option<u32> {
        match kind(self.info(id)?) {
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {
                self.resolve(self.third(id)?, depth.checked_sub(1)?)
            }
            _ => Some(id),
        }
    }

    fn size(&self, id: u32, depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let id = self.resolve(id, DEEPEST)?;
        match kind(self.info(id)?) {
            INT | STRUCT | UNION | ENUM | ENUM64 | FLOAT => self.third(id),
            PTR => Some(8),
            ARRAY => {
                let at = self.at(id)? + 12;
                let element = self.size(word(&self.data, at)?, depth)?;
                element.checked_mul(word(&self.data, at + 8)?)
            }
            _ => None,
        }
    }

    fn named(&self, wanted: u32, name: &str) -> impl Iterator<Item = u32> {
        let count = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        (1..=count).filter(move |&id| {
            self.info(id).is_some_and(|info| kind(info) == wanted)
                && self
                    .at(id)
                    .and_then(|at| word(&self.data, at))
                    .is_some_and(|at| self.is_named(at, name))
        })
    }

    fn at(&self, id: u32) -> Option<usize> {
        self.types.get((id as usize).checked_sub(1)?).map(|&at| at as usize)
    }

    fn info(&self, id: u32) -> Option<u32> {
        word(&self.data, self.at(id)? + 4)
    }

    /// The third word of a type: its size, or the type it refers to.
    fn third(&self, id: u32) -> Option<u32> {
        word(&self.data, self.at(id)? + 8)
    }

    /// Without looking for the string's end: most differ in the first byte.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let tail = self.data.get(self.strings + offset as usize..).unwrap_or_default();
        tail.starts_with(name.as_bytes()) && tail.get(name.len()) == Some(&0)
    }

    fn string(&self, offset: u32) -> &[u8] {
        let tail = self.data.get(self.strings + offset as usize..).unwrap_or_default();
        tail.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn vlen(info: u32) -> u32 {
    info & 0xffff
}

/// Bytes that follow the three words of a type.
fn trailing(kind: u32, vlen: u32) -> Option<usize> {
    let vlen = vlen as usize;
    match kind {
        INT | VAR | DECL_TAG => Some(4),
        ARRAY => Some(12),
        STRUCT | UNION | DATASEC | ENUM64 => Some(vlen * 12),
        ENUM | FUNC_PROTO => Some(vlen * 8),
        PTR | 7..=12 | FLOAT | TYPE_TAG => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int a; union { struct { short b; char c[6]; }; long d; }; };`
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0d\0short\0char\0long\0";
        let name = |text: &str| {
            let needle = [b"\0", text.as_bytes(), b"\0"].concat();
            u32::try_from(strings.windows(needle.len()).position(|w| w == needle).unwrap() + 1)
                .unwrap()
        };
        let info = |kind: u32, vlen: u32| kind << 24 | vlen;
        let mut types: Vec<u32> = Vec::new();
        types.extend([name("int"), info(INT, 0), 4, 0]); // 1
        types.extend([name("short"), info(INT, 0), 2, 0]); // 2
        types.extend([name("char"), info(INT, 0), 1, 0]); // 3
        types.extend([name("long"), info(INT, 0), 8, 0]); // 4
        types.extend([0, info(ARRAY, 0), 0, 3, 1, 6]); // 5
        types.extend([0, info(STRUCT, 2), 8, name("b"), 2, 0, name("c"), 5, 16]); // 6
        types.extend([0, info(UNION, 2), 8, 0, 6, 0, name("d"), 4, 0]); // 7
        types.extend([name("outer"), info(STRUCT, 2), 16, name("a"), 1, 0, 0, 7, 64]); // 8
        let body: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let len = u32::try_from(body.len()).unwrap();
        for word in [24, 0, len, len, u32::try_from(strings.len()).unwrap()] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(body);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_ones() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.member("outer", "a"), Some(Member { offset: 0, size: 4 }));
        assert_eq!(btf.member("outer", "c"), Some(Member { offset: 10, size: 6 }));
        assert_eq!(btf.member("outer", "d"), Some(Member { offset: 8, size: 8 }));
        assert_eq!(btf.member("outer", "nope"), None);
        assert_eq!(btf.member("nowhere", "a"), None);
        assert_eq!(btf.member("outer", "a.b"), None);
    }

    #[test]
    fn the_running_kernel_is_read() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            return;
        }
        let btf = Btf::read(path).unwrap();
        assert_eq!(btf.member("task_struct", "comm").unwrap().size, 16);
        assert!(btf.has_typedef("btf_trace_inet_sock_set_state"));
    }

    proptest! {
        #[test]
        fn damaged_btf_never_panics(position in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut data = sample();
            let len = data.len();
            data[position % len] = byte;
            data.truncate(len - cut % len);
            if let Ok(btf) = Btf::parse(data) {
                let _ = btf.member("outer", "c");
                let _ = btf.parameters("outer");
            }
        }
    }
}
