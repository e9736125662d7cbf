//! One virtual machine: memory, boot, vCPUs, interrupt controllers, clock.
