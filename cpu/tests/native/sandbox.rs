//! The memory that a tested instruction can reach, at the same addresses on both sides.
//!
//! Between the areas nothing is mapped, so every access that leaves one faults.

use crate::rng::Rng;

/// A range of linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) at: u64,
    pub(crate) len: usize,
}

/// The instruction, and INT3 around it: execute and read.
pub(crate) const CODE: Area = Area {
    at: 0x1000_0000,
    len: 0x2000,
};
/// Read and write.
pub(crate) const DATA: Area = Area {
    at: 0x2000_0000,
    len: 0x3000,
};
/// Read only, right behind [`DATA`].
pub(crate) const FIXED: Area = Area {
    at: 0x2000_3000,
    len: 0x1000,
};
/// Read and write; the stack pointer starts here.
pub(crate) const STACK: Area = Area {
    at: 0x3000_0000,
    len: 0x1000,
};
/// Read and write, beyond what 32 bits reach.
pub(crate) const HIGH: Area = Area {
    at: 0x1234_5678_9000,
    len: 0x1000,
};

/// The areas that can change, in the order of the image.
pub(crate) const WRITABLE: [Area; 3] = [DATA, STACK, HIGH];
/// Bytes of all writable areas together.
pub(crate) const IMAGE: usize = DATA.len + STACK.len + HIGH.len;
/// Memory is compared and reported in lines of this many bytes.
pub(crate) const LINE: usize = 64;

/// Contents of the writable areas and of [`FIXED`] before a case adds its own: the same for all.
pub(crate) fn pristine() -> (Vec<u8>, Vec<u8>) {
    let mut rng = Rng::new(0x5a5a);
    let (mut image, mut fixed) = (vec![0; IMAGE], vec![0; FIXED.len]);
    rng.fill(&mut image);
    rng.fill(&mut fixed);
    (image, fixed)
}

/// Offset of an address in the image.
pub(crate) fn image_offset(address: u64) -> Option<usize> {
    let mut before = 0;
    for area in WRITABLE {
        if let Ok(offset) = usize::try_from(address.wrapping_sub(area.at))
            && offset < area.len
        {
            return Some(before + offset);
        }
        before += area.len;
    }
    None
}

/// Address of an offset in the image.
pub(crate) fn image_address(offset: usize) -> u64 {
    let mut rest = offset;
    for area in WRITABLE {
        if rest < area.len {
            return area.at + rest as u64;
        }
        rest -= area.len;
    }
    unreachable!("offset {offset:#x} is beyond the image")
}
