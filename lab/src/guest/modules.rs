//! Kernel modules for an initramfs: which files a set of drivers needs, and the `modules.dep` that says so.
//!
//! A kernel package carries no `modules.dep` (depmod runs at installation), so dependencies are read from the
//! modules themselves: the `depends=` entry of their `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// A module as it is loaded.
#[derive(Debug, Clone)]
pub(super) struct Module {
    /// Path below `/lib/modules/RELEASE`, `kernel/drivers/virtio/virtio.ko`.
    pub(super) file: String,
    pub(super) content: Vec<u8>,
    depends: Vec<String>,
}

/// A module file as the kernel package or the host has it, often compressed.
#[derive(Debug)]
struct Packed {
    file: String,
    content: Vec<u8>,
}

/// The modules of one kernel, by name.
#[derive(Debug, Default)]
pub(super) struct Modules {
    by_name: BTreeMap<String, Packed>,
    builtin: BTreeSet<String>,
}

/// Why a kernel's modules cannot be put into a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// A driver that the kernel has neither as a module nor built in.
    #[error("the kernel has no module {name}{}", needed_by.as_ref().map_or(String::new(), |by| format!(", which {by} needs")))]
    Missing {
        /// The module.
        name: String,
        /// Who needs it.
        needed_by: Option<String>,
    },
    /// A compressed module that does not decompress.
    #[error("module {file} cannot be decompressed: {why}")]
    Damaged {
        /// The file.
        file: String,
        /// What the decompressor says.
        why: String,
    },
}

impl Packed {
    /// Decompressed and with its dependencies: the guest's loader is kept simple.
    fn unpack(&self) -> Result<Module, ModuleError> {
        let damaged = |error: std::io::Error| ModuleError::Damaged {
            file: self.file.clone(),
            why: error.to_string(),
        };
        let (file, content) = decompressed(&self.file, &self.content).map_err(damaged)?;
        let depends = modinfo(&content, "depends").unwrap_or_default();
        let depends = depends
            .split(',')
            .filter(|name| !name.is_empty())
            .map(canonical)
            .collect();
        Ok(Module {
            file,
            content,
            depends,
        })
    }
}

/// A module without its compression, and the name it then has.
fn decompressed(file: &str, content: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let mut plain = Vec::new();
    let stem = match file.rsplit_once('.') {
        Some((stem, "xz")) => {
            liblzma::read::XzDecoder::new(content).read_to_end(&mut plain)?;
            stem
        }
        Some((stem, "zst")) => {
            zstd::stream::read::Decoder::new(content)?.read_to_end(&mut plain)?;
            stem
        }
        Some((stem, "gz")) => {
            flate2::read::GzDecoder::new(content).read_to_end(&mut plain)?;
            stem
        }
        _ => return Ok((file.to_owned(), content.to_owned())),
    };
    Ok((stem.to_owned(), plain))
}

impl Modules {
    /// Adds a module file; names are those of the file, with `-` and `_` alike.
    pub(super) fn add(&mut self, file: &str, content: Vec<u8>) {
        let packed = Packed {
            file: file.to_owned(),
            content,
        };
        self.by_name.insert(name_of(file), packed);
    }

    /// Takes note of the drivers in `modules.builtin`.
    pub(super) fn add_builtin(&mut self, list: &str) {
        self.builtin.extend(list.lines().map(name_of));
    }

    /// The wanted modules and all they depend on, dependencies first.
    pub(super) fn closure(&self, wanted: &[String]) -> Result<Vec<Module>, ModuleError> {
        let mut taken = BTreeSet::new();
        let mut ordered = Vec::new();
        for name in wanted {
            self.visit(&canonical(name), None, &mut taken, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn visit(
        &self,
        name: &str,
        needed_by: Option<&str>,
        taken: &mut BTreeSet<String>,
        ordered: &mut Vec<Module>,
    ) -> Result<(), ModuleError> {
        // Entered before its dependencies, so that a cycle in a damaged file ends.
        if self.builtin.contains(name) || !taken.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(packed) = self.by_name.get(name) else {
            let needed_by = needed_by.map(str::to_owned);
            return Err(ModuleError::Missing {
                name: name.to_owned(),
                needed_by,
            });
        };
        let module = packed.unpack()?;
        for dependency in &module.depends {
            self.visit(dependency, Some(name), taken, ordered)?;
        }
        ordered.push(module);
        Ok(())
    }
}

/// `modules.dep` for a closure: each module with all it depends on, nearest first.
pub(super) fn dep_file(closure: &[Module]) -> String {
    let mut text = String::new();
    for module in closure {
        text.push_str(&module.file);
        text.push(':');
        for dependency in all_below(closure, module) {
            text.push(' ');
            text.push_str(&dependency.file);
        }
        text.push('\n');
    }
    text
}

/// What a module depends on, nearest first: modprobe loads such a list from its end. In a closure
/// dependencies stand before their dependents.
fn all_below<'a>(closure: &'a [Module], module: &Module) -> Vec<&'a Module> {
    let mut wanted: BTreeSet<String> = module.depends.iter().cloned().collect();
    let mut below = Vec::new();
    for candidate in closure.iter().rev() {
        if wanted.contains(&name_of(&candidate.file)) {
            wanted.extend(candidate.depends.iter().cloned());
            below.push(candidate);
        }
    }
    below
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/virtio/virtio-rng.ko.xz` as `virtio_rng`.
pub(super) fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    canonical(base.split(".ko").next().unwrap_or(base))
}

/// The first `key=` entry of the `.modinfo` section of an ELF64 object.
fn modinfo<'a>(elf: &'a [u8], key: &str) -> Option<&'a str> {
    let section = section(elf, b".modinfo")?;
    let entries = section
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok());
    entries
        .filter_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
        .next()
}

/// Content of a section of a little-endian ELF64 file; none if the file is anything else.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    const SECTION_HEADER: usize = 64;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize_at(elf, 0x28, 8)?;
    let count = usize_at(elf, 0x3c, 2)?;
    let names = usize_at(elf, 0x3e, 2)?;
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        elf.get(start..start.checked_add(SECTION_HEADER)?)
    };
    let content = |header: &[u8]| {
        let (start, size) = (usize_at(header, 0x18, 8)?, usize_at(header, 0x20, 8)?);
        elf.get(start..start.checked_add(size)?)
    };
    let names = content(header(names)?)?;
    let named = |header: &&[u8]| {
        let name = usize_at(header, 0, 4).and_then(|start| names.get(start..));
        name.is_some_and(|rest| rest.split(|byte| *byte == 0).next() == Some(wanted))
    };
    let found = (0..count).filter_map(header).find(named)?;
    content(found)
}

fn usize_at(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let field = bytes.get(at..at + size)?;
    let value = field
        .iter()
        .rev()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF object with a `.modinfo` section.
    fn object(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (info_at, names_at) = (64, 64 + modinfo.len());
        let table_at = names_at + names.len();
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28..0x30].copy_from_slice(&(table_at as u64).to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        elf[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
        elf.extend_from_slice(modinfo.as_bytes());
        elf.extend_from_slice(names);
        for (name, at, size) in [
            (0, 0, 0),
            (1, info_at, modinfo.len()),
            (10, names_at, names.len()),
        ] {
            let mut header = [0u8; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    fn sample() -> Modules {
        let mut modules = Modules::default();
        modules.add_builtin("kernel/drivers/base/firmware.ko\n");
        modules.add("kernel/v/virtio.ko", object("license=GPL\0depends=\0"));
        modules.add("kernel/v/virtio_ring.ko", object("depends=virtio\0"));
        modules.add(
            "kernel/v/virtio-mmio.ko",
            object("depends=virtio_ring,virtio\0"),
        );
        modules.add("kernel/n/vsock.ko", object("depends=firmware\0"));
        modules.add("kernel/n/other.ko", object("depends=absent\0"));
        modules
    }

    #[test]
    fn the_closure_has_dependencies_first_and_skips_builtins() {
        let modules = sample();
        let wanted = [
            "virtio_mmio".to_owned(),
            "vsock".to_owned(),
            "firmware".to_owned(),
        ];
        let closure = modules.closure(&wanted).unwrap();
        let files: Vec<&str> = closure.iter().map(|module| module.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "kernel/v/virtio.ko",
                "kernel/v/virtio_ring.ko",
                "kernel/v/virtio-mmio.ko",
                "kernel/n/vsock.ko"
            ]
        );
        assert_eq!(
            dep_file(&closure),
            "kernel/v/virtio.ko:\nkernel/v/virtio_ring.ko: kernel/v/virtio.ko\n\
             kernel/v/virtio-mmio.ko: kernel/v/virtio_ring.ko kernel/v/virtio.ko\nkernel/n/vsock.ko:\n"
        );
    }

    #[test]
    fn a_missing_module_is_named_with_who_needs_it() {
        let error = sample().closure(&["other".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel has no module absent, which other needs"
        );
        assert!(sample().closure(&["nope".to_owned()]).is_err());
    }

    #[test]
    fn compressed_modules_have_dependencies_too() {
        let packed = zstd::stream::encode_all(&object("depends=virtio\0")[..], 0).unwrap();
        let mut modules = sample();
        modules.add("kernel/z/zipped.ko.zst", packed);
        let closure = modules.closure(&["zipped".to_owned()]).unwrap();
        assert_eq!(
            dep_file(&closure),
            "kernel/v/virtio.ko:\nkernel/z/zipped.ko: kernel/v/virtio.ko\n"
        );
        assert_eq!(closure[1].content, object("depends=virtio\0"));
        modules.add("kernel/z/torn.ko.xz", b"x".to_vec());
        let error = modules.closure(&["torn".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("kernel/z/torn.ko.xz"), "{error}");
    }

    #[test]
    fn damaged_objects_have_no_dependencies() {
        let good = object("depends=virtio\0");
        for cut in 0..good.len() {
            let _survived = modinfo(&good[..cut], "depends");
        }
        assert_eq!(modinfo(&good, "depends"), Some("virtio"));
        assert_eq!(modinfo(b"\x7fELF", "depends"), None);
    }
}
