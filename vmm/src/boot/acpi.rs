//! The ACPI tables: what processors, interrupts, devices and power controls the machine has.
//!
//! Hardware-reduced ACPI: no SCI, no power-management timer, no legacy interrupt controller. Linux
//! then skips probing for a PIC and a PIT, which the software backend does not have.
//! Tables lie one after another from [`layout::ACPI_START`], the RSDP first.

use acpi_tables::aml::{
    And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO,
    If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, OpRegion, OpRegionSpace, Package,
    Path, ResourceTemplate, Scope, Store,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use provium_devices::power;

use crate::layout::{self, Slot};

const OEM_ID: [u8; 6] = *b"PROVIU";
const OEM_TABLE_ID: [u8; 8] = *b"MICROVM ";
const OEM_REVISION: u32 = 1;
const DSDT_REVISION: u8 = 2;
/// FADT boot architecture flags: do not look for VGA, nor for a CMOS clock.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// Value of a device notification that says "button pressed".
const NOTIFY_BUTTON: u8 = 0x80;

// A local APIC entry of the MADT has 8 bits for the id; more processors need x2APIC entries.
const _: () = assert!(layout::MAX_CPUS < 255);

/// What the tables describe.
#[derive(Clone, Copy, Debug)]
pub struct AcpiConfig<'a> {
    /// Number of processors; their APIC ids count from 0.
    pub cpus: u32,
    /// virtio-mmio slots that hold a device; others do not exist for the guest.
    pub virtio_slots: &'a [Slot],
}

/// The finished tables, ready to be copied to guest memory as one block.
#[derive(Debug)]
pub struct AcpiTables {
    /// Bytes from [`layout::ACPI_START`] on.
    pub bytes: Vec<u8>,
}

impl AcpiTables {
    /// Physical address of the RSDP.
    pub const RSDP: u64 = layout::ACPI_START;
}

/// Builds all tables.
pub fn build(config: &AcpiConfig<'_>) -> AcpiTables {
    let mut block = Block {
        bytes: vec![0; Rsdp::len()],
    };
    let dsdt = block.append(&dsdt(config));
    let fadt = block.append(&fadt(dsdt));
    let madt = block.append(&madt(config));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = block.append(&xsdt);
    let rsdp = encode(&[&Rsdp::new(OEM_ID, xsdt)]);
    block.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    AcpiTables { bytes: block.bytes }
}

struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Adds a table and tells its guest physical address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        layout::ACPI_START + start as u64
    }
}

fn encode(items: &[&dyn Aml]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        item.to_aml_bytes(&mut bytes);
    }
    bytes
}

fn power_register(offset: u64) -> GAS {
    let address = u64::from(layout::POWER_PORT) + offset;
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        address,
    )
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        // Set means: no fixed-hardware button; the power button is a device of the DSDT.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = power_register(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = power_register(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = power_register(power::SLEEP_STATUS);
    fadt.finalize()
}

fn madt(config: &AcpiConfig<'_>) -> impl Aml {
    // All addresses of the layout's device hole are below 4 GiB.
    let lapic = LocalInterruptController::Address(layout::LAPIC_START as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, lapic);
    for id in (0..=u8::MAX).take(config.cpus as usize) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC_START as u32, 0));
    madt
}

fn dsdt(config: &AcpiConfig<'_>) -> impl Aml {
    let mut devices = Vec::new();
    serial_port(1, layout::COM1_PORT, layout::COM1_GSI).to(&mut devices);
    serial_port(2, layout::COM2_PORT, layout::COM2_GSI).to(&mut devices);
    for (index, slot) in config.virtio_slots.iter().enumerate() {
        virtio_device(index, slot).to(&mut devices);
    }
    power_button(&mut devices);
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    sleep_states(&mut body);
    let mut dsdt = Sdt::new(
        *b"DSDT",
        36,
        DSDT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    dsdt.append_slice(&body);
    dsdt
}

/// A device with a name, an id and the resources it decodes.
struct Described {
    name: String,
    hardware_id: Box<dyn Aml>,
    unique_id: u32,
    resources: Vec<Box<dyn Aml>>,
}

impl Described {
    fn to(&self, out: &mut Vec<u8>) {
        let resources = self.resources.iter().map(|r| &**r).collect();
        Device::new(
            Path::new(&self.name),
            vec![
                &Name::new(Path::new("_HID"), &*self.hardware_id),
                &Name::new(Path::new("_UID"), &self.unique_id),
                &Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources)),
            ],
        )
        .to_aml_bytes(out);
    }
}

/// An interrupt as all our devices raise them: edge-triggered, active high, not shared.
fn interrupt(gsi: u32) -> Box<dyn Aml> {
    Box::new(Interrupt::new(true, true, false, false, gsi))
}

fn serial_port(number: u32, port: u16, gsi: u32) -> Described {
    Described {
        name: format!("COM{number}"),
        hardware_id: Box::new(EISAName::new("PNP0501")),
        unique_id: number,
        resources: vec![
            Box::new(IO::new(port, port, 1, layout::COM_PORTS)),
            interrupt(gsi),
        ],
    }
}

fn virtio_device(index: usize, slot: &Slot) -> Described {
    let window = (slot.mmio_base as u32, layout::VIRTIO_MMIO_SIZE as u32);
    Described {
        name: format!("V{index:03X}"),
        hardware_id: Box::new("LNRO0005"),
        unique_id: slot.gsi,
        resources: vec![
            Box::new(Memory32Fixed::new(true, window.0, window.1)),
            interrupt(slot.gsi),
        ],
    }
}

/// The power button, and the generic event device that announces it: on an interrupt it reads which
/// events are pending, clears them, and notifies.
fn power_button(out: &mut Vec<u8>) {
    let hardware_id = EISAName::new("PNP0C0C");
    let id = Name::new(Path::new("_HID"), &hardware_id);
    Device::new(Path::new("PWRB"), vec![&id]).to_aml_bytes(out);

    let (pending, button) = (Path::new("EVTS"), Path::new("PWRB"));
    let (fetch, clear) = (
        Store::new(&Local(0), &pending),
        Store::new(&pending, &Local(0)),
    );
    let pressed = And::new(&aml::ZERO, &Local(0), &power::EVENT_POWER_BUTTON);
    let notify = Notify::new(&button, &NOTIFY_BUTTON);
    let if_pressed = If::new(&pressed, vec![&notify]);
    let method = Method::new(
        Path::new("_EVT"),
        1,
        true,
        vec![&fetch, &clear, &if_pressed],
    );
    let port = layout::POWER_PORT + power::EVENT as u16;
    let register = Field::new(
        Path::new("EVTR"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    let line = interrupt(layout::POWER_GSI);
    Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&*line])),
            &OpRegion::new(Path::new("EVTR"), OpRegionSpace::SystemIO, &port, &1u8),
            &register,
            &method,
        ],
    )
    .to_aml_bytes(out);
}

/// `\_S5_`, soft off, and `\_S3_`, suspend to RAM. There is no firmware that a guest would wake up
/// in, and hardware-reduced ACPI has no waking vector: the vCPU that has written the sleep control
/// register goes on behind that write when it is woken, with everything as it was. Operating systems
/// are ready for that, as it is what they find when a suspend does not come about.
fn sleep_states(out: &mut Vec<u8>) {
    let zero = 0u8;
    for (name, kind) in [
        ("_S3_", power::SLEEP_TYPE_S3),
        ("_S5_", power::SLEEP_TYPE_S5),
    ] {
        let package = Package::new(vec![&kind, &kind, &zero, &zero]);
        Name::new(Path::new(name), &package).to_aml_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn slots(count: u32) -> Vec<Slot> {
        (0..count).map_while(layout::virtio_slot).collect()
    }

    /// The table at a guest physical address, its length and checksum verified.
    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let start = (address - layout::ACPI_START) as usize;
        let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap());
        let table = &bytes[start..start + length as usize];
        assert_eq!(
            sum(table),
            0,
            "checksum of {:?}",
            std::str::from_utf8(&table[..4])
        );
        table
    }

    fn tables_of(config: &AcpiConfig<'_>) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let bytes = build(config).bytes;
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let xsdt = table(&bytes, u64_at(&bytes, 24));
        let entries: Vec<&[u8]> = xsdt[36..]
            .chunks(8)
            .map(|entry| table(&bytes, u64_at(entry, 0)))
            .collect();
        let [fadt, madt] = entries[..] else {
            panic!("two tables")
        };
        let dsdt = table(&bytes, u64_at(fadt, 140));
        (fadt.to_vec(), madt.to_vec(), dsdt.to_vec())
    }

    #[test]
    fn pointers_lead_to_tables_with_valid_checksums() {
        let (fadt, madt, dsdt) = tables_of(&AcpiConfig {
            cpus: 2,
            virtio_slots: &slots(3),
        });
        let signatures: Vec<_> = [&fadt, &madt, &dsdt]
            .map(|table| table[..4].to_vec())
            .into();
        assert_eq!(signatures, [b"FACP", b"APIC", b"DSDT"]);
    }

    #[test]
    fn fadt_points_power_controls_at_the_power_device() {
        let (fadt, _, _) = tables_of(&AcpiConfig {
            cpus: 1,
            virtio_slots: &[],
        });
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
        assert_ne!(flags & 1 << 10, 0, "reset register supported");
        // Generic addresses: I/O space, 8 bits, byte access, port.
        let register = |at: usize| (fadt[at..at + 4].to_vec(), u64_at(&fadt, at + 4));
        let port = u64::from(layout::POWER_PORT);
        assert_eq!(register(116), (vec![1, 8, 0, 1], port + power::RESET));
        assert_eq!(fadt[128], power::RESET_VALUE);
        assert_eq!(
            register(244),
            (vec![1, 8, 0, 1], port + power::SLEEP_CONTROL)
        );
        assert_eq!(
            register(256),
            (vec![1, 8, 0, 1], port + power::SLEEP_STATUS)
        );
    }

    #[test]
    fn madt_lists_every_processor_and_the_ioapic() {
        for cpus in [1, 4, layout::MAX_CPUS] {
            let (_, madt, _) = tables_of(&AcpiConfig {
                cpus,
                virtio_slots: &[],
            });
            let mut entries = &madt[44..];
            let (mut ids, mut ioapics) = (Vec::new(), 0);
            while let [kind, length, ..] = *entries {
                let (entry, rest) = entries.split_at(usize::from(length));
                match kind {
                    0 => ids.push(u32::from(entry[3])),
                    1 => ioapics += 1,
                    other => panic!("entry of type {other}"),
                }
                entries = rest;
            }
            assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
            assert_eq!(ioapics, 1);
        }
    }

    #[test]
    fn dsdt_describes_exactly_the_slots_in_use() {
        for count in [0, 1, layout::VIRTIO_SLOTS] {
            let (_, _, dsdt) = tables_of(&AcpiConfig {
                cpus: 1,
                virtio_slots: &slots(count),
            });
            let found = dsdt
                .windows(8)
                .filter(|window| window == b"LNRO0005")
                .count();
            assert_eq!(found, count as usize);
        }
    }

    #[test]
    fn the_largest_machine_fits_the_room() {
        let slots = slots(layout::VIRTIO_SLOTS);
        let config = AcpiConfig {
            cpus: layout::MAX_CPUS,
            virtio_slots: &slots,
        };
        let size = build(&config).bytes.len() as u64;
        assert!(size <= layout::ACPI_END - layout::ACPI_START, "{size}");
    }

    /// The reference implementation reads the DSDT and compiles it again without a remark, where it
    /// is installed.
    #[test]
    fn iasl_reads_the_dsdt() {
        let (_, _, dsdt) = tables_of(&AcpiConfig {
            cpus: 1,
            virtio_slots: &slots(19),
        });
        let dir = tempfile::tempdir().unwrap();
        let iasl = |args: [&str; 2]| {
            std::process::Command::new("iasl")
                .args(args)
                .current_dir(&dir)
                .output()
        };
        std::fs::write(dir.path().join("dsdt.aml"), dsdt).unwrap();
        let disassembled = match iasl(["-d", "dsdt.aml"]) {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: cannot run iasl: {error}"),
        };
        assert!(disassembled.status.success());
        let compiled = iasl(["-pagain", "dsdt.dsl"]).unwrap();
        let text = String::from_utf8_lossy(&compiled.stdout).into_owned();
        assert!(text.contains("0 Errors, 0 Warnings, 0 Remarks"), "{text}");
    }
}
