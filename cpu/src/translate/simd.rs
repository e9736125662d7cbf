//! simd instructions.

use super::Emit;

pub(super) fn emit(_: &mut Emit) -> bool {
    false
}
