//! Removes DWARF from the object; BTF and line information stay.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The object without `.debug_*` sections and what relocates them.
pub(super) fn debug(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("read the object")?;
    let mut doomed = Vec::new();
    for section in &builder.sections {
        let name = String::from_utf8_lossy(section.name.as_slice()).into_owned();
        if name.starts_with(".debug_") || name.starts_with(".rel.debug_") {
            doomed.push(section.id());
        }
    }
    for id in doomed {
        builder.sections.get_mut(id).delete = true;
    }
    builder.delete_orphans();
    // LLVM keeps all names in one table; the writer wants one for sections alone.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("write the object")?;
    Ok(out)
}
