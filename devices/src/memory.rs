//! The guest's RAM as every device, the loader and the vCPUs share it.

use vm_memory::GuestMemoryMmap;

use crate::dirty::DirtyPages;

/// Guest physical memory with one dirty bit per page.
///
/// Everything written through this type marks its pages. The software CPU learns from the marks
/// which cached code a device has overwritten; a snapshot learns which pages to save.
pub type GuestMemory = GuestMemoryMmap<DirtyPages>;
