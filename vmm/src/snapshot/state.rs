//! What a snapshot keeps of a machine besides its RAM and console, as plain data.

use kvm_bindings::{kvm_clock_data, kvm_irqchip, kvm_pit_state2};
use provium_devices::power::PowerState;
use provium_devices::serial::SerialPortState;
use provium_devices::virtio::mmio::TransportState;
use serde::{Deserialize, Serialize};

use crate::vcpu::VcpuState;

/// The devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoardState {
    /// Console port.
    pub com1: SerialPortState,
    /// Second serial port.
    pub com2: SerialPortState,
    /// Power registers.
    pub power: PowerState,
    /// Virtio devices in slot order.
    pub virtio: Vec<TransportState>,
}

/// What a backend keeps: vCPUs, interrupt controllers, the clocks behind the guest's clocks. All of
/// it in KVM's shapes, whoever saved it, so that the other backend can go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineState {
    /// vCPUs in order.
    pub vcpus: Vec<VcpuState>,
    /// Interrupt controllers; `soft` has only the I/O APIC.
    pub chips: Vec<kvm_irqchip>,
    /// The timer that only KVM has.
    pub pit: Option<kvm_pit_state2>,
    /// kvmclock, where KVM kept it.
    pub kvmclock: Option<kvm_clock_data>,
    /// Rate of the guest's TSC.
    pub tsc_khz: u32,
    /// Instructions retired so far, where they are counted.
    pub instructions: Option<u64>,
    /// The vCPU that had the last turn on `soft`.
    pub last_turn: usize,
}

/// A machine at one instant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// vCPUs and interrupt controllers.
    pub engine: EngineState,
    /// Devices.
    pub board: BoardState,
    /// Guest time, in nanoseconds since the machine's start.
    pub now_ns: u64,
    /// Wall clock at guest time 0, in nanoseconds since the epoch.
    pub wall_base_ns: u64,
    /// The panic line of the current boot.
    pub panic_line: Option<String>,
}
