//! Virtual devices: virtio-mmio transport, block, net, vsock, rng, serial.
