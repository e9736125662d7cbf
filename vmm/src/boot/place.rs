//! Where kernel and initramfs go: decided and checked before a byte is written.

use std::ops::Range;

use super::BootError;
use super::image::KernelImage;
use crate::layout::{self, RamRegion};

/// Where Linux is moved to when it does not fit where it was linked for. Its page tables can move
/// it in steps of this only.
const LOWEST_KERNEL: u64 = 2 << 20;
/// The kernel looks for the next archive of an initramfs on a word.
const ARCHIVE_ALIGNMENT: u64 = 4;

/// The places of everything that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// What to add, wrapping, to the kernel's linked addresses.
    pub shift: u64,
    /// The kernel with its zero-initialised data.
    pub kernel: Range<u64>,
    /// The initramfs, from a page on; empty if there is none.
    pub initrd: Range<u64>,
}

/// Offset of every archive in the initramfs, and its total size.
pub(crate) fn lay_archives(parts: &[&[u8]]) -> (Vec<u64>, u64) {
    let mut end = 0u64;
    let place = |part: &&[u8]| {
        let start = end.next_multiple_of(ARCHIVE_ALIGNMENT);
        end = start + part.len() as u64;
        start
    };
    let offsets = parts.iter().map(place).collect();
    (offsets, end)
}

/// Places the kernel where it was linked for, or, in a machine too small for that, as low as it
/// goes; and the initramfs at the top of low RAM.
pub(crate) fn place(
    kernel: &KernelImage,
    initrd_size: u64,
    ram: &[RamRegion],
) -> Result<Placement, BootError> {
    let linked = kernel.elf().range();
    let path = || kernel.path().to_path_buf();
    if linked.start < layout::EXTENDED_MEMORY_START {
        return Err(BootError::KernelTooLow {
            path: path(),
            address: linked.start,
        });
    }
    let low_end = ram.first().map_or(0, RamRegion::end);
    let initrd = place_initrd(kernel, initrd_size, low_end);
    let mut fits_alone = false;
    for shift in shifts(kernel) {
        let kernel = linked.start.wrapping_add(shift)..linked.end.wrapping_add(shift);
        fits_alone |= kernel.end <= low_end;
        if let Some(initrd) = initrd.clone().filter(|initrd| kernel.end <= initrd.start) {
            return Ok(Placement {
                shift,
                kernel,
                initrd,
            });
        }
    }
    let kernel_size = linked.end - linked.start;
    let ram = ram.iter().map(|region| region.size).sum();
    Err(match fits_alone {
        true => BootError::InitrdTooLarge {
            path: path(),
            initrd_size,
            kernel_size,
            ram,
        },
        false => BootError::KernelTooLarge {
            path: path(),
            kernel_size,
            ram,
        },
    })
}

/// The shifts to try. Only a bzImage says whether its kernel can be moved.
fn shifts(kernel: &KernelImage) -> Vec<u64> {
    let linked = kernel.elf().range().start;
    let movable = kernel.header().is_some_and(|header| header.relocatable())
        && linked > LOWEST_KERNEL
        && linked.is_multiple_of(LOWEST_KERNEL);
    if movable {
        vec![0, LOWEST_KERNEL.wrapping_sub(linked)]
    } else {
        vec![0]
    }
}

/// The highest page-aligned place below `low_end` that the kernel can reach.
fn place_initrd(kernel: &KernelImage, size: u64, low_end: u64) -> Option<Range<u64>> {
    let reachable = kernel
        .header()
        .map_or(u64::MAX, |header| header.initrd_addr_max());
    let limit = low_end.min(reachable.saturating_add(1));
    let start = limit.checked_sub(size)? & !(layout::PAGE_SIZE - 1);
    Some(start..start + size)
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::{tiny_bzimage, tiny_vmlinux};
    use super::*;
    use crate::layout::ram_regions;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    #[test]
    fn archives_begin_on_words() {
        assert_eq!(lay_archives(&[]), (vec![], 0));
        assert_eq!(lay_archives(&[b"12345", b"", b"1"]), (vec![0, 8, 8], 9));
    }

    #[test]
    fn kernel_goes_where_it_was_linked_for_and_initrd_to_the_top() {
        let kernel = tiny_bzimage(b"code");
        let placement = place(&kernel, 5000, &ram_regions(512 * MIB).unwrap()).unwrap();
        assert_eq!(placement.shift, 0);
        assert_eq!(placement.kernel, 16 * MIB..18 * MIB);
        assert_eq!(placement.initrd, 512 * MIB - 8192..512 * MIB - 8192 + 5000);
    }

    #[test]
    fn initrd_stays_below_the_device_hole() {
        let kernel = tiny_bzimage(b"code");
        let placement = place(&kernel, 4096, &ram_regions(4096 * MIB).unwrap()).unwrap();
        assert_eq!(placement.initrd.end, layout::LOW_RAM_LIMIT);
    }

    #[test]
    fn a_small_machine_gets_a_relocatable_kernel_lower_down() {
        let kernel = tiny_bzimage(b"code");
        let placement = place(&kernel, 100, &ram_regions(16 * MIB).unwrap()).unwrap();
        assert_eq!(placement.kernel, 2 * MIB..4 * MIB);
        assert_eq!(16 * MIB + placement.shift.wrapping_neg(), 30 * MIB);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_figures() {
        let ram = ram_regions(16 * MIB).unwrap();
        let vmlinux = KernelImage::parse(Path::new("/k"), tiny_vmlinux(b"code")).unwrap();
        let error = place(&vmlinux, 0, &ram).unwrap_err();
        assert!(matches!(error, BootError::KernelTooLarge { .. }), "{error}");
        let error = place(&tiny_bzimage(b"code"), 15 * MIB, &ram).unwrap_err();
        assert!(matches!(error, BootError::InitrdTooLarge { .. }), "{error}");
        let error = place(&tiny_bzimage(b"code"), 1 << 40, &ram).unwrap_err();
        assert!(matches!(error, BootError::InitrdTooLarge { .. }), "{error}");
    }
}
