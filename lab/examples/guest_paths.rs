//! Prepares the default guest and prints where its kernel and initramfs are; `benches/` boot them.

use std::sync::Arc;

use provium_lab::Harness;
use provium_lab::guest::StderrProgress;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let harness = Harness::for_tests()?;
    let guests = harness
        .guests()
        .clone()
        .with_progress(Arc::new(StderrProgress::default()));
    let image = guests.prepare("minimal")?;
    println!(
        "kernel {}\ninitrd {}",
        image.kernel.display(),
        image.initrd.display()
    );
    Ok(())
}
