//! The cache of prepared guests: look up, lock, build, install.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{Apt, Package};
use super::assemble::{Contents, Kernel};
use super::progress::{GuestStep, Progress};
use super::recipe::{Recipe, hex};
use super::{GuestError, host};
use crate::config::GuestFile;

/// A guest that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// What went into it, `NAME VERSION` each.
    pub packages: Vec<String>,
}

/// The cache; see the [module documentation](super). Cheap to clone.
#[derive(Clone)]
pub struct Guests {
    dir: PathBuf,
    progress: Arc<dyn Progress>,
}

/// What `NAME-KEY.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    image: String,
    packages: Vec<String>,
    kernel_bytes: u64,
    initrd_bytes: u64,
}

const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd";

/// How directories begin in which a guest is being prepared.
const SCRATCH: &str = "preparing-";

impl Guests {
    /// The cache in `dir`, which is created on first use.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, progress: Arc<dyn Progress>) -> Self {
        Self {
            dir: dir.into(),
            progress,
        }
    }

    /// The same cache, telling another progress.
    #[must_use]
    pub fn with_progress(self, progress: Arc<dyn Progress>) -> Self {
        Self { progress, ..self }
    }

    /// The file that a profile names as kernel; prepares it if need be.
    pub fn kernel(&self, file: &GuestFile) -> Result<PathBuf, GuestError> {
        match file {
            GuestFile::Path(path) => Ok(path.clone()),
            GuestFile::Recipe(name) => Ok(self.prepare(name)?.kernel),
            GuestFile::Host => host::kernel(),
        }
    }

    /// The file that a profile names as initrd; prepares it if need be.
    pub fn initrd(&self, file: &GuestFile) -> Result<PathBuf, GuestError> {
        match file {
            GuestFile::Path(path) => Ok(path.clone()),
            GuestFile::Recipe(name) => Ok(self.prepare(name)?.initrd),
            GuestFile::Host => self.host_initrd(),
        }
    }

    /// The image of a recipe if it is there, without preparing anything.
    pub fn cached(&self, name: &str) -> Result<Option<GuestImage>, GuestError> {
        Ok(self.look_up(&find(name)?))
    }

    /// The image of a recipe, prepared now if it is not there.
    pub fn prepare(&self, name: &str) -> Result<GuestImage, GuestError> {
        let recipe = find(name)?;
        if let Some(image) = self.look_up(&recipe) {
            return Ok(image);
        }
        let build = || {
            let _lock = self.lock(name)?;
            match self.look_up(&recipe) {
                Some(image) => Ok(image),
                None => self.build(&recipe),
            }
        };
        build().map_err(|cause| GuestError::Unavailable {
            name: name.to_owned(),
            advice: advice(),
            cause: Box::new(cause),
        })
    }

    /// Prepares a recipe anew if Debian has newer packages by now; the image before stays for those who use it.
    pub fn refresh(&self, name: &str) -> Result<GuestImage, GuestError> {
        let recipe = find(name)?;
        let _lock = self.lock(name)?;
        self.build(&recipe)
    }

    fn manifest_path(&self, recipe: &Recipe) -> PathBuf {
        self.dir
            .join(format!("{}-{}.json", recipe.name, &recipe.key()[..16]))
    }

    fn look_up(&self, recipe: &Recipe) -> Option<GuestImage> {
        let text = std::fs::read(self.manifest_path(recipe)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        let dir = self.dir.join(&manifest.image);
        // A file of another size was damaged from outside: preparing again heals it.
        let whole = |name: &str, size: u64| {
            let path = dir.join(name);
            path.metadata()
                .is_ok_and(|meta| meta.len() == size)
                .then_some(path)
        };
        Some(GuestImage {
            kernel: whole(KERNEL, manifest.kernel_bytes)?,
            initrd: whole(INITRD, manifest.initrd_bytes)?,
            packages: manifest.packages,
        })
    }

    /// Waits for other processes that prepare; released when dropped, also by the end of the process.
    fn lock(&self, name: &str) -> Result<File, GuestError> {
        std::fs::create_dir_all(&self.dir)
            .map_err(|source| GuestError::write(&self.dir, source))?;
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(|source| GuestError::write(&path, source))?;
        if file.try_lock().is_err() {
            self.progress.step(name, &GuestStep::Waiting);
            file.lock()
                .map_err(|source| GuestError::write(&path, source))?;
        }
        Ok(file)
    }

    /// Removes what a process that was killed while it prepared has left. The lock is held, so nobody uses it.
    fn remove_leftovers(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                // What cannot be removed now is tried again the next time.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    fn build(&self, recipe: &Recipe) -> Result<GuestImage, GuestError> {
        let tell = |step: GuestStep| self.progress.step(&recipe.name, &step);
        self.remove_leftovers();
        let scratch = tempfile::Builder::new()
            .prefix(SCRATCH)
            .tempdir_in(&self.dir)
            .map_err(|source| GuestError::write(&self.dir, source))?;
        let apt = Apt::new(scratch.path())?;
        tell(GuestStep::Lists { percent: 0.0 });
        apt.update(|percent| tell(GuestStep::Lists { percent }))?;
        let kernel = kernel_package(&apt, &recipe.kernel)?;
        let mut packages = match recipe.closure {
            true => apt.resolve_closure(&recipe.packages)?,
            false => apt.resolve(&recipe.packages)?,
        };
        packages.extend(apt.resolve(std::slice::from_ref(&kernel))?);
        let hash = image_hash(recipe, &packages);
        let place = self.dir.join(&hash);
        if !place.join(INITRD).is_file() || !place.join(KERNEL).is_file() {
            let (count, bytes) = (
                packages.len(),
                packages.iter().map(|package| package.size).sum(),
            );
            let loading = |percent| GuestStep::Download {
                percent,
                packages: count,
                bytes,
            };
            tell(loading(0.0));
            let files = apt.download(&packages, |percent| tell(loading(percent)))?;
            tell(GuestStep::Kernel {
                package: kernel.clone(),
            });
            let image = self.assemble(recipe, &files, &packages, &kernel)?;
            install(scratch.path(), &place, &image)?;
        }
        self.record(recipe, &hash, &packages)?;
        let image = self.look_up(recipe).ok_or_else(|| GuestError::Missing {
            package: hash.clone(),
            wanted: format!("{KERNEL} and {INITRD} of the recorded sizes"),
        })?;
        let size = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
        let (kernel_bytes, initrd_bytes) = (size(&image.kernel), size(&image.initrd));
        tell(GuestStep::Ready {
            kernel_bytes,
            initrd_bytes,
            path: place,
        });
        Ok(image)
    }

    /// Kernel and initramfs, as bytes.
    fn assemble(
        &self,
        recipe: &Recipe,
        files: &Path,
        packages: &[Package],
        kernel: &str,
    ) -> Result<(Vec<u8>, Vec<u8>), GuestError> {
        let mut contents = Contents::new(recipe);
        let mut image = None;
        for package in packages {
            let path = files.join(&package.file);
            if package.name() == kernel {
                image = Some(Kernel::from_package(&path)?);
            } else {
                contents.add_package(&path)?;
            }
        }
        let image = image.ok_or_else(|| GuestError::Missing {
            package: kernel.to_owned(),
            wanted: "file among the downloads".to_owned(),
        })?;
        self.progress.step(&recipe.name, &GuestStep::Initramfs);
        let initrd = contents.finish(&image)?;
        Ok((image.image, initrd))
    }

    fn record(&self, recipe: &Recipe, hash: &str, packages: &[Package]) -> Result<(), GuestError> {
        let dir = self.dir.join(hash);
        let size = |name: &str| {
            let path = dir.join(name);
            path.metadata()
                .map(|meta| meta.len())
                .map_err(|source| GuestError::read(&path, source))
        };
        let manifest = Manifest {
            image: hash.to_owned(),
            packages: packages.iter().map(Package::title).collect(),
            kernel_bytes: size(KERNEL)?,
            initrd_bytes: size(INITRD)?,
        };
        let path = self.manifest_path(recipe);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| GuestError::write(&path, error.into()))?;
        replace(&path, &text)
    }

    /// An initramfs of the running host's modules and the userland of `minimal`.
    fn host_initrd(&self) -> Result<PathBuf, GuestError> {
        let minimal = self.prepare("minimal")?;
        let recipe = find("minimal")?;
        let kernel = host::modules(&recipe)?;
        let base = std::fs::read(&minimal.initrd)
            .map_err(|source| GuestError::read(&minimal.initrd, source))?;
        let initrd = super::assemble::with_modules(base, &recipe, &kernel)?;
        let mut hash = Sha256::new();
        hash.update(&initrd);
        let path = self.dir.join(format!("host-{}", hex(&hash.finalize())));
        if !path.is_file() {
            replace(&path, &initrd)?;
        }
        Ok(path)
    }
}

fn find(name: &str) -> Result<Recipe, GuestError> {
    Recipe::find(name).ok_or_else(|| GuestError::NoRecipe {
        name: name.to_owned(),
    })
}

/// The concrete kernel behind a meta package.
fn kernel_package(apt: &Apt, meta: &str) -> Result<String, GuestError> {
    let found = apt
        .depends(meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"));
    found.ok_or_else(|| GuestError::Missing {
        package: meta.to_owned(),
        wanted: "dependency on a kernel image".to_owned(),
    })
}

/// Covers everything that decides what the image is.
fn image_hash(recipe: &Recipe, packages: &[Package]) -> String {
    let mut hash = Sha256::new();
    hash.update(recipe.key());
    let mut lines: Vec<String> = packages
        .iter()
        .map(|p| format!("{} {}\n", p.file, p.hash))
        .collect();
    lines.sort();
    for line in lines {
        hash.update(line);
    }
    hex(&hash.finalize())
}

/// Moves a finished image to its place in one step.
fn install(
    scratch: &Path,
    place: &Path,
    (kernel, initrd): &(Vec<u8>, Vec<u8>),
) -> Result<(), GuestError> {
    let staging = scratch.join("image");
    std::fs::create_dir(&staging).map_err(|source| GuestError::write(&staging, source))?;
    for (name, content) in [(KERNEL, kernel), (INITRD, initrd)] {
        let path = staging.join(name);
        std::fs::write(&path, content).map_err(|source| GuestError::write(&path, source))?;
    }
    if place.exists() {
        // Damaged before: this process holds the lock, and who reads the old files keeps them open.
        std::fs::remove_dir_all(place).map_err(|source| GuestError::write(place, source))?;
    }
    std::fs::rename(&staging, place).map_err(|source| GuestError::write(place, source))
}

/// Writes a file in one step.
fn replace(path: &Path, content: &[u8]) -> Result<(), GuestError> {
    let fail = |source| GuestError::write(path, source);
    let dir = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    std::fs::write(file.path(), content).map_err(fail)?;
    file.persist(path)
        .map(drop)
        .map_err(|error| fail(error.error))
}

/// What a user without network can do.
fn advice() -> String {
    "to use files of your own instead, give\n  \
       --kernel FILE  (or PROVIUM_KERNEL): a bzImage or ELF vmlinux for x86-64, or `host` for this host's kernel\n  \
       --initrd FILE  (or PROVIUM_INITRD): an initramfs with /init and, unless built into the kernel, the modules \
     virtio_mmio and vmw_vsock_virtio_transport below /lib/modules/RELEASE with their modules.dep\n\
     or set kernel and initrd of [profiles.minimal] in provium.toml"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::progress::Silent;

    fn guests(dir: &Path) -> Guests {
        Guests::new(dir, Arc::new(Silent))
    }

    /// An image as a preparation leaves it.
    fn put(guests: &Guests, name: &str) -> PathBuf {
        let recipe = find(name).unwrap();
        let scratch = tempfile::tempdir_in(&guests.dir).unwrap();
        let place = guests.dir.join("abc");
        install(
            scratch.path(),
            &place,
            &(b"kernel".to_vec(), b"initrd".to_vec()),
        )
        .unwrap();
        let package = Package {
            file: "x_1_all.deb".into(),
            size: 1,
            hash: "SHA256:1".into(),
        };
        guests.record(&recipe, "abc", &[package]).unwrap();
        place
    }

    #[test]
    fn r088_a_prepared_image_is_found_again_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let guests = guests(dir.path());
        assert_eq!(guests.cached("minimal").unwrap(), None);
        let place = put(&guests, "minimal");
        let image = guests.cached("minimal").unwrap().unwrap();
        assert_eq!(image.kernel, place.join("vmlinuz"));
        assert_eq!(image.packages, ["x 1"]);
        assert_eq!(
            guests.kernel(&GuestFile::Recipe("minimal".into())).unwrap(),
            image.kernel
        );
        std::fs::write(place.join("initrd"), "cut").unwrap();
        assert_eq!(guests.cached("minimal").unwrap(), None);
    }

    #[test]
    fn a_damaged_image_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let guests = guests(dir.path());
        let place = put(&guests, "minimal");
        std::fs::write(place.join("vmlinuz"), "bad").unwrap();
        put(&guests, "minimal");
        assert!(guests.cached("minimal").unwrap().is_some());
    }

    #[test]
    fn the_hash_covers_recipe_and_packages_but_not_their_order() {
        let package = |file: &str| Package {
            file: file.into(),
            size: 1,
            hash: "SHA256:1".into(),
        };
        let (minimal, userland) = (find("minimal").unwrap(), find("userland").unwrap());
        let both = [package("a_1_x.deb"), package("b_1_x.deb")];
        let swapped = [package("b_1_x.deb"), package("a_1_x.deb")];
        assert_eq!(image_hash(&minimal, &both), image_hash(&minimal, &swapped));
        assert_ne!(image_hash(&minimal, &both), image_hash(&userland, &both));
        assert_ne!(
            image_hash(&minimal, &both),
            image_hash(&minimal, &both[..1])
        );
    }

    #[test]
    fn r088_the_error_without_network_names_flags_and_files() {
        let error = GuestError::Unavailable {
            name: "minimal".into(),
            advice: advice(),
            cause: Box::new(GuestError::Apt {
                command: "apt-get update".into(),
                output: "no route".into(),
            }),
        };
        let text = error.to_string();
        for part in [
            "--kernel",
            "--initrd",
            "PROVIUM_KERNEL",
            "PROVIUM_INITRD",
            "no route",
            "virtio_mmio",
            "host",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            guests(Path::new("/nonexistent"))
                .prepare("nope")
                .unwrap_err()
                .to_string()
                .contains("minimal")
        );
    }
}
