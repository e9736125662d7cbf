//! Numbers of the register interface (virtio 1.2, 2.1 and 4.2.2).

/// Register offsets (virtio 1.2, 4.2.2).
pub mod register {
    /// Reads "virt".
    pub const MAGIC: u64 = 0x000;
    /// Reads 2.
    pub const VERSION: u64 = 0x004;
    /// What kind of device this is.
    pub const DEVICE_ID: u64 = 0x008;
    /// Who made it.
    pub const VENDOR_ID: u64 = 0x00c;
    /// Offered features, the half chosen by the next register.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Chooses a half of the offered features.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// Accepted features, the half chosen by the next register.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Chooses a half of the accepted features.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Chooses the queue that the queue registers are about.
    pub const QUEUE_SEL: u64 = 0x030;
    /// Greatest size of the queue, 0 if there is none.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// Size of the queue.
    pub const QUEUE_NUM: u64 = 0x038;
    /// Enables the queue.
    pub const QUEUE_READY: u64 = 0x044;
    /// Announces requests: the value is the queue's number.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// Why the interrupt was raised.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// Clears bits of the former.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Device status.
    pub const STATUS: u64 = 0x070;
    /// Descriptor table, low half.
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    /// Descriptor table, high half.
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Available ring, low half.
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    /// Available ring, high half.
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Used ring, low half.
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    /// Used ring, high half.
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// First of the shared memory registers; reading all ones means that there is no region.
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    /// Last of the shared memory registers.
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Changes whenever the configuration space does.
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    /// The device's configuration space, up to the end of the window.
    pub const CONFIG: u64 = 0x100;
}

/// Device status bits (virtio 1.2, 2.1).
pub mod status {
    /// The guest has found the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// Features are negotiated.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on until it is reset.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
}

/// Interrupt status bits (virtio 1.2, 4.2.2).
pub mod interrupt_status {
    /// Used buffers are waiting.
    pub const USED_BUFFER: u32 = 1;
    /// The configuration or the status has changed.
    pub const CONFIG_CHANGE: u32 = 2;
}
