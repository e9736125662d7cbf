//! The running host's kernel and modules as a guest's (cli-and-config R-088, `--kernel host`).

use std::path::{Path, PathBuf};

use super::GuestError;
use super::assemble::Kernel;
use super::modules::Modules;
use super::recipe::Recipe;

/// Release of the running kernel.
fn release() -> Result<String, GuestError> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    let text = std::fs::read_to_string(path).map_err(|source| GuestError::read(path, source))?;
    Ok(text.trim().to_owned())
}

/// Its image.
pub(super) fn kernel() -> Result<PathBuf, GuestError> {
    let path = PathBuf::from(format!("/boot/vmlinuz-{}", release()?));
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(source) => Err(GuestError::read(&path, source)),
    }
}

/// Its modules, as far as the recipe's closure needs them; the kernel image itself is not read.
pub(super) fn modules(recipe: &Recipe) -> Result<Kernel, GuestError> {
    let release = release()?;
    let root = PathBuf::from(format!("/lib/modules/{release}"));
    let mut modules = Modules::default();
    let builtin = root.join("modules.builtin");
    let list =
        std::fs::read_to_string(&builtin).map_err(|source| GuestError::read(&builtin, source))?;
    modules.add_builtin(&list);
    let dep = root.join("modules.dep");
    let text = std::fs::read_to_string(&dep).map_err(|source| GuestError::read(&dep, source))?;
    for file in needed(&text, &recipe.modules) {
        let path = root.join(&file);
        let content = std::fs::read(&path).map_err(|source| GuestError::read(&path, source))?;
        modules.add(&file, content);
    }
    Ok(Kernel {
        release,
        image: Vec::new(),
        modules,
    })
}

/// Files that `modules.dep` names for the wanted modules and what they depend on.
fn needed(dep: &str, wanted: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    for line in dep.lines() {
        let Some((file, dependencies)) = line.split_once(':') else {
            continue;
        };
        if wanted
            .iter()
            .any(|name| super::modules::name_of(file) == *name)
        {
            files.push(file.to_owned());
            files.extend(dependencies.split_whitespace().map(str::to_owned));
        }
    }
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_needed_modules_are_read() {
        let dep = "kernel/v/virtio.ko.xz:\nkernel/v/virtio_mmio.ko.xz: kernel/v/virtio_ring.ko.xz kernel/v/virtio.ko.xz\n\
                   kernel/x/other.ko.xz:\n";
        let wanted = ["virtio_mmio".to_owned()];
        assert_eq!(
            needed(dep, &wanted),
            [
                "kernel/v/virtio.ko.xz",
                "kernel/v/virtio_mmio.ko.xz",
                "kernel/v/virtio_ring.ko.xz"
            ]
        );
    }
}
