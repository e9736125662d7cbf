//! The transport against the mock driver: negotiation, queues, interrupts, broken guests.

use super::*;
use crate::mock::{Buffer, Descriptor, Driver, DriverQueue, flag};
use crate::virtio::rng::Rng;
use crate::virtio::{F_INDIRECT_DESC, QueueError, id};

fn rng() -> Driver {
    Driver::new(Rng::new(1))
}

fn started() -> Driver {
    Driver::started(Rng::new(1), 0)
}

const WRITABLE: &[Buffer] = &[Buffer::Writable(16)];

#[test]
fn the_identity_registers() {
    let mut driver = rng();
    assert_eq!(driver.read(register::MAGIC), 0x7472_6976);
    assert_eq!(driver.read(register::VERSION), 2);
    assert_eq!(driver.read(register::DEVICE_ID), id::RNG);
    assert_eq!(driver.read(register::SHM_LEN_LOW), u32::MAX);
    assert_eq!(driver.read(register::SHM_BASE_HIGH), u32::MAX);
    assert_eq!(driver.read(register::STATUS), 0);
}

#[test]
fn offered_features_come_in_halves() {
    let mut driver = rng();
    assert_eq!(
        driver.offered(),
        F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC
    );
    driver.write(register::DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(register::DEVICE_FEATURES), 0);
}

#[test]
fn features_without_version_1_are_refused() {
    let mut driver = rng();
    assert!(!driver.negotiate(F_EVENT_IDX));
}

#[test]
fn features_never_offered_are_refused() {
    for bit in [0, 5, 33, 63] {
        let mut driver = rng();
        assert!(!driver.negotiate(F_VERSION_1 | 1 << bit), "bit {bit}");
    }
}

#[test]
fn features_are_frozen_once_accepted() {
    let mut driver = rng();
    assert!(driver.negotiate(F_VERSION_1));
    driver.write(register::DRIVER_FEATURES_SEL, 0);
    driver.write(register::DRIVER_FEATURES, 0xffff_ffff);
    assert_eq!(driver.transport.negotiation.driver_features, F_VERSION_1);
}

#[test]
fn status_bits_come_in_order_and_stay() {
    let mut driver = rng();
    for out_of_order in [status::DRIVER, status::FEATURES_OK, status::DRIVER_OK] {
        driver.write(register::STATUS, out_of_order);
        assert_eq!(driver.read(register::STATUS), 0);
    }
    assert!(driver.negotiate(F_VERSION_1));
    let before = driver.read(register::STATUS);
    driver.write(register::STATUS, status::ACKNOWLEDGE);
    assert_eq!(driver.read(register::STATUS), before);
    driver.write(register::STATUS, before | status::DEVICE_NEEDS_RESET);
    assert_eq!(
        driver.read(register::STATUS),
        before,
        "only the device may say that"
    );
}

#[test]
fn writing_zero_resets() {
    let mut driver = started();
    driver.request(0, WRITABLE);
    driver.notify(0);
    driver.write(register::STATUS, 0);
    assert_eq!(driver.read(register::STATUS), 0);
    assert_eq!(driver.read(register::INTERRUPT_STATUS), 0);
    driver.write(register::QUEUE_SEL, 0);
    assert_eq!(driver.read(register::QUEUE_READY), 0);
    driver.start(0);
    assert!(driver.transport.is_active());
}

#[test]
fn a_failed_driver_is_left_alone() {
    let mut driver = started();
    driver.add_status(status::FAILED);
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.take_used(0), []);
}

#[test]
fn queues_that_do_not_exist_have_size_zero() {
    let mut driver = rng();
    for index in [1, 7, u32::MAX] {
        driver.write(register::QUEUE_SEL, index);
        assert_eq!(driver.read(register::QUEUE_NUM_MAX), 0);
        driver.write(register::QUEUE_READY, 1);
        driver.write(register::QUEUE_NUM, 4);
        assert_eq!(driver.read(register::QUEUE_READY), 0);
        driver.write(register::QUEUE_NOTIFY, index);
    }
}

#[test]
fn queues_open_with_features_ok_and_close_with_driver_ok() {
    let mut driver = rng();
    let place = Driver::queue_place(0, 8);
    driver.set_up_queue(0, &place);
    assert_eq!(driver.read(register::QUEUE_READY), 0, "before FEATURES_OK");
    driver.start(0);
    driver.write(register::QUEUE_SEL, 0);
    driver.write(register::QUEUE_NUM, 2);
    assert_eq!(driver.transport.setups[0].size, 64, "after it was enabled");
    driver.write(register::QUEUE_READY, 0);
    driver.set_up_queue(0, &place);
    assert_eq!(driver.read(register::QUEUE_READY), 0, "after DRIVER_OK");
}

#[test]
fn bad_queues_are_found_when_enabled() {
    let good = Driver::queue_place(0, 8);
    let outside = crate::mock::RAM_SIZE as u64;
    let cases = [
        ("size 0", DriverQueue { size: 0, ..good }),
        ("size 3", DriverQueue { size: 3, ..good }),
        ("size 128", DriverQueue { size: 128, ..good }),
        (
            "descriptors misaligned",
            DriverQueue {
                descriptors: good.descriptors + 8,
                ..good
            },
        ),
        (
            "available misaligned",
            DriverQueue {
                available: good.available + 1,
                ..good
            },
        ),
        (
            "used misaligned",
            DriverQueue {
                used: good.used + 2,
                ..good
            },
        ),
        (
            "descriptors outside",
            DriverQueue {
                descriptors: outside - 16,
                ..good
            },
        ),
        (
            "available outside",
            DriverQueue {
                available: outside - 4,
                ..good
            },
        ),
        (
            "used outside",
            DriverQueue {
                used: outside,
                ..good
            },
        ),
        (
            "used at the end of time",
            DriverQueue {
                used: u64::MAX - 3,
                ..good
            },
        ),
    ];
    for (what, place) in cases {
        let mut driver = rng();
        assert!(driver.negotiate(F_VERSION_1));
        driver.set_up_queue(0, &place);
        assert_eq!(driver.read(register::QUEUE_READY), 0, "{what}");
        assert!(driver.needs_reset(), "{what}");
        assert_eq!(
            driver.line.count(),
            0,
            "{what}: no interrupt before DRIVER_OK"
        );
        assert!(matches!(
            driver.transport.fault(),
            Some(DeviceError::Queue { index: 0, .. })
        ));
        driver.start(0);
        assert!(driver.transport.is_active(), "{what}: a reset heals");
    }
}

#[test]
fn a_queue_the_device_needs_and_did_not_get() {
    let mut driver = rng();
    assert!(driver.negotiate(F_VERSION_1));
    driver.add_status(status::DRIVER_OK);
    assert!(driver.needs_reset());
    assert!(matches!(
        driver.transport.fault(),
        Some(DeviceError::MissingQueue(0))
    ));
}

#[test]
fn a_ring_that_offers_more_than_it_holds_breaks_the_device() {
    let mut driver = started();
    driver.set_available_index(0, 65);
    driver.notify(0);
    assert!(driver.needs_reset());
    assert_eq!(
        driver.read(register::INTERRUPT_STATUS),
        interrupt_status::CONFIG_CHANGE
    );
    assert_eq!(driver.line.count(), 1);
    driver.notify(0);
    assert_eq!(driver.line.count(), 1, "nothing happens any more");
    driver.start(0);
    assert!(!driver.needs_reset());
}

#[test]
fn a_head_outside_of_the_table_breaks_the_device() {
    let mut driver = started();
    driver.offer(0, 64);
    driver.notify(0);
    assert!(driver.needs_reset());
    let fault = driver.transport.fault();
    let Some(DeviceError::Queue { source, .. }) = fault else {
        panic!("{fault:?}")
    };
    assert!(matches!(
        source,
        QueueError::NoSuchDescriptor {
            index: 64,
            size: 64
        }
    ));
}

#[test]
fn malformed_chains_come_back_empty_and_the_next_request_is_served() {
    let long = |index: u16| Descriptor {
        address: 0x1000,
        len: 1,
        flags: flag::NEXT | flag::WRITE,
        next: index + 1,
    };
    let write = Descriptor {
        address: 0x1000,
        len: 8,
        flags: flag::WRITE,
        next: 0,
    };
    let table = 0x8_0000;
    let indirect = Descriptor {
        address: table,
        len: 16,
        flags: flag::INDIRECT,
        next: 0,
    };
    let outside = crate::mock::RAM_SIZE as u64;
    let cases: Vec<(&str, Descriptor, Option<Descriptor>)> = vec![
        (
            "loop of one",
            Descriptor {
                flags: flag::NEXT | flag::WRITE,
                next: 0,
                ..write
            },
            None,
        ),
        (
            "next outside",
            Descriptor {
                flags: flag::NEXT | flag::WRITE,
                next: 64,
                ..write
            },
            None,
        ),
        (
            "outside",
            Descriptor {
                address: outside - 7,
                ..write
            },
            None,
        ),
        (
            "at the end of time",
            Descriptor {
                address: u64::MAX - 1,
                ..write
            },
            None,
        ),
        (
            "huge",
            Descriptor {
                len: u32::MAX,
                ..write
            },
            None,
        ),
        (
            "empty indirect table",
            Descriptor { len: 0, ..indirect },
            None,
        ),
        (
            "indirect table of odd size",
            Descriptor {
                len: 17,
                ..indirect
            },
            None,
        ),
        (
            "indirect table outside",
            Descriptor {
                address: outside,
                ..indirect
            },
            None,
        ),
        ("indirect loop", indirect, Some(long(0))),
        ("indirect in indirect", indirect, Some(indirect)),
        (
            "indirect next outside",
            indirect,
            Some(Descriptor { next: 9, ..long(0) }),
        ),
        (
            "huge indirect table",
            Descriptor {
                len: 65535 * 16,
                ..indirect
            },
            Some(long(0)),
        ),
    ];
    for (what, head, in_table) in cases {
        let mut driver = started();
        for index in 0..1100 {
            driver.put_descriptor_at(table, index, in_table.map_or(long(index), |d| d));
        }
        if what == "huge indirect table" {
            (0..2000).for_each(|index| driver.put_descriptor_at(table, index, long(index)));
        }
        driver.put_descriptor(0, 0, head);
        driver.offer(0, 0);
        driver.put_descriptor(0, 1, write);
        driver.offer(0, 1);
        driver.notify(0);
        assert_eq!(driver.take_used(0), [(0, 0), (1, 8)], "{what}");
        assert!(!driver.needs_reset(), "{what}");
        assert_eq!(driver.transport.malformed_requests(), 1, "{what}");
    }
}

#[test]
fn readable_after_writable_is_malformed_and_zero_length_is_not() {
    let mut driver = started();
    let next = flag::NEXT;
    let (address, len) = (0x1000, 8);
    let descriptors = [
        Descriptor {
            address,
            len,
            flags: next | flag::WRITE,
            next: 1,
        },
        Descriptor {
            address,
            len,
            flags: 0,
            next: 0,
        },
        Descriptor {
            address,
            len: 0,
            flags: next | flag::WRITE,
            next: 3,
        },
        Descriptor {
            address,
            len,
            flags: flag::WRITE,
            next: 0,
        },
    ];
    (0..)
        .zip(descriptors)
        .for_each(|(i, d)| driver.put_descriptor(0, i, d));
    driver.offer(0, 0);
    driver.offer(0, 2);
    driver.notify(0);
    assert_eq!(driver.take_used(0), [(0, 0), (2, 8)]);
}

#[test]
fn a_good_indirect_table_is_followed() {
    let mut driver = started();
    let table = 0x8_0000;
    let part = |len, flags, next| Descriptor {
        address: 0x9_0000,
        len,
        flags,
        next,
    };
    driver.put_descriptor_at(table, 0, part(5, flag::WRITE | flag::NEXT, 2));
    driver.put_descriptor_at(table, 2, part(6, flag::WRITE, 0));
    let head = Descriptor {
        address: table,
        len: 48,
        flags: flag::INDIRECT,
        next: 0,
    };
    driver.put_descriptor(0, 7, head);
    driver.offer(0, 7);
    driver.notify(0);
    assert_eq!(driver.take_used(0), [(7, 11)]);
}

#[test]
fn interrupts_are_raised_once_per_batch_and_acknowledged() {
    let mut driver = started();
    driver.request(0, WRITABLE);
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.line.take(), 1);
    assert_eq!(
        driver.read(register::INTERRUPT_STATUS),
        interrupt_status::USED_BUFFER
    );
    assert!(driver.take_used_interrupt());
    assert_eq!(driver.read(register::INTERRUPT_STATUS), 0);
    driver.notify(0);
    assert_eq!(driver.line.take(), 0, "nothing new");
}

#[test]
fn no_interrupt_is_honoured_without_event_idx() {
    let mut driver = Driver::started(Rng::new(1), F_EVENT_IDX);
    driver.set_available_flags(0, 1);
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.line.take(), 0);
    driver.set_available_flags(0, 0);
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.line.take(), 1);
}

#[test]
fn used_event_says_when_to_interrupt() {
    let mut driver = started();
    driver.set_used_event(0, 1);
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(
        driver.line.take(),
        0,
        "the first is not the one it waits for"
    );
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.line.take(), 1);
    assert_eq!(
        driver.notification_wish(0),
        (0, 2),
        "told to notify about the third"
    );
}

#[test]
fn accesses_that_are_not_32_bits_wide_do_nothing() {
    let mut driver = rng();
    for width in [1, 2, 8] {
        let mut data = vec![0xee; width];
        driver.transport.read(register::MAGIC, &mut data);
        assert_eq!(data, vec![0; width]);
        driver.transport.write(register::STATUS, &vec![1; width]);
    }
    let mut data = [0xee; 4];
    driver.transport.read(register::MAGIC + 2, &mut data);
    assert_eq!(data, [0; 4]);
    driver.transport.write(register::STATUS + 2, &[1; 4]);
    assert_eq!(driver.read(register::STATUS), 0);
}

#[test]
fn a_saved_transport_goes_on_where_it_was() {
    let mut driver = started();
    for _ in 0..100 {
        driver.request(0, WRITABLE);
        driver.notify(0);
        assert_eq!(driver.take_used(0).len(), 1);
    }
    let saved = driver.transport.save();
    driver.transport.reset();
    driver.transport.restore(&saved).unwrap();
    assert_eq!(driver.transport.save(), saved);
    assert_eq!(driver.kick.count(), 1, "polled once after a restore");
    driver.request(0, WRITABLE);
    driver.notify(0);
    assert_eq!(driver.take_used(0).len(), 1);
}

#[test]
fn damaged_states_are_refused() {
    let mut driver = started();
    let saved = driver.transport.save();
    let damage: [fn(&mut TransportState); 4] = [
        |state| state.queues.clear(),
        |state| state.negotiation.driver_features |= 1,
        |state| state.queues[0].as_mut().unwrap().setup.used = u64::MAX - 3,
        |state| state.queues[0].as_mut().unwrap().setup.size = 65,
    ];
    for damage in damage {
        let mut state = saved.clone();
        damage(&mut state);
        assert!(driver.transport.restore(&state).is_err());
        assert!(!driver.transport.is_active());
    }
    driver.transport.restore(&saved).unwrap();
    assert!(driver.transport.is_active());
}
