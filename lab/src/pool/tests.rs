use std::sync::Arc;

use provium_protocol::Amount;

use super::*;
use crate::World;
use crate::wait::Pending;

const MIB: u64 = 1 << 20;

fn amount(mib: u64, cpus: u32) -> Amount {
    Amount {
        memory_bytes: mib * MIB,
        cpus,
    }
}

fn pool(mib: u64, cpus: u32) -> Pool {
    Pool::new(amount(mib, cpus))
}

/// A charge as a boot takes it.
fn charging(world: &Arc<World>, share: &Share, mib: u64) -> Pending<Charge> {
    let (share, inner) = (share.clone(), world.clone());
    Pending::new(world, "vm:boot", "vm a", async move {
        let charged = share.charge(&inner, mib * MIB, |_| {}).await;
        charged.map_err(|error| crate::Error::new("vm:boot", "vm a", error))
    })
}

fn claiming(world: &Arc<World>, share: &Share, wanted: Amount) -> Pending<()> {
    let (share, inner) = (share.clone(), world.clone());
    Pending::new(world, "lab:claim", "lab provium", async move {
        let claimed = share.claim(&inner, wanted, |_| {}).await.map(drop);
        claimed.map_err(|error| crate::Error::new("lab:claim", "lab provium", error))
    })
}

#[test]
fn r108_a_file_reserves_its_overhead_and_its_declared_claim() {
    let pool = pool(1000, 4);
    let share = pool.admit("a", amount(400, 2)).unwrap();
    assert_eq!(pool.used(), amount(450, 2));
    assert_eq!(share.reservation(), amount(450, 2));
    assert!(pool.admit("b", amount(600, 0)).is_none());
    assert!(pool.admit("b", amount(0, 3)).is_none());
    let other = pool.admit("b", amount(500, 2)).unwrap();
    assert_eq!(pool.available(), amount(0, 0));
    drop((share, other));
    assert_eq!(pool.used(), Amount::default());
}

#[test]
fn r108_a_declared_claim_is_there_when_it_is_made() {
    let pool = pool(1000, 4);
    let share = pool.admit("a", amount(400, 2)).unwrap();
    let world = World::new();
    assert!(
        claiming(&world, &share, amount(400, 2))
            .poll()
            .unwrap()
            .is_ok()
    );
    assert_eq!(pool.used(), amount(450, 2));
    assert_eq!(share.claimed(), Some(amount(400, 2)));
}

#[test]
fn r108_a_claim_that_was_not_declared_waits_for_room() {
    let pool = pool(1000, 4);
    let first = pool.admit("a", amount(500, 0)).unwrap();
    let second = pool.admit("b", Amount::default()).unwrap();
    let world = World::new();
    let mut claim = claiming(&world, &second, amount(500, 1));
    assert!(claim.poll().is_none());
    assert!(
        pool.admit("c", Amount::default()).is_none(),
        "a file passed a waiting request"
    );
    drop(first);
    assert!(claim.poll().unwrap().is_ok());
    assert_eq!(pool.used(), amount(550, 1));
    drop((claim, second));
    assert_eq!(pool.used(), Amount::default());
}

#[test]
fn r108_a_claim_beyond_the_pool_names_both() {
    let pool = pool(1000, 4);
    let share = pool.admit("a", Amount::default()).unwrap();
    let error = claiming(&World::new(), &share, amount(2048, 0))
        .poll()
        .unwrap()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("2048 MiB") && text.contains("1000 MiB"),
        "{text}"
    );
}

#[test]
fn r125_a_boot_is_charged_to_the_claim_or_fails_with_the_numbers() {
    let pool = pool(2000, 4);
    let share = pool.admit("a", amount(600, 0)).unwrap();
    let world = World::new();
    assert!(
        claiming(&world, &share, amount(600, 0))
            .poll()
            .unwrap()
            .is_ok()
    );
    let one = charging(&world, &share, 512).poll().unwrap().unwrap();
    assert_eq!(pool.used(), amount(650, 0), "a claim is the whole budget");
    let error = charging(&world, &share, 512)
        .poll()
        .unwrap()
        .map(|_| ())
        .unwrap_err()
        .to_string();
    for part in ["544 MiB", "600 MiB", "claim at least 1088 MiB"] {
        assert!(error.contains(part), "{error}");
    }
    drop(one);
    assert!(charging(&world, &share, 512).poll().unwrap().is_ok());
}

#[test]
fn r125_a_boot_without_a_claim_is_charged_to_the_pool_and_waits_its_turn() {
    let pool = pool(1250, 4);
    let [a, b, c] = ["a", "b", "c"].map(|file| pool.admit(file, Amount::default()).unwrap());
    let world = World::new();
    let first = charging(&world, &a, 512).poll().unwrap().unwrap();
    let mut large = charging(&world, &b, 1024);
    assert!(large.poll().is_none());
    let mut small = charging(&world, &c, 512);
    // 150 + 544 are used; 544 more fit beside them, and a request that fits need not wait for one that does not.
    assert!(small.poll().is_some());
    drop(small);
    drop(first);
    assert!(large.poll().unwrap().is_ok());
}

#[test]
fn r125_what_can_never_fit_is_refused_at_once() {
    let pool = pool(1000, 4);
    let share = pool.admit("a", Amount::default()).unwrap();
    let world = World::new();
    let error = charging(&world, &share, 1024)
        .poll()
        .unwrap()
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("1000 MiB") && error.contains("--mem"),
        "{error}"
    );
    assert_eq!(pool.used(), amount(50, 0));
}

#[test]
fn a_request_that_is_given_up_makes_room_for_those_behind() {
    let pool = pool(1000, 4);
    let (a, b) = (
        pool.admit("a", Amount::default()),
        pool.admit("b", Amount::default()),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    let world = World::new();
    let held = charging(&world, &a, 512).poll().unwrap().unwrap();
    let waiting = charging(&world, &b, 512);
    assert!(pool.admit("c", Amount::default()).is_none());
    drop(waiting);
    assert!(pool.admit("c", Amount::default()).is_some());
    drop(held);
    assert_eq!(pool.used(), amount(100, 0));
}

#[test]
fn files_that_wait_for_each_other_do_not_wait_for_ever() {
    let pool = pool(1300, 4);
    let shares = ["a", "b"].map(|file| pool.admit(file, Amount::default()).unwrap());
    let worlds = [World::new(), World::new()];
    let held: Vec<Charge> = (0..2)
        .map(|n| {
            charging(&worlds[n], &shares[n], 512)
                .poll()
                .unwrap()
                .unwrap()
        })
        .collect();
    let mut first = charging(&worlds[0], &shares[0], 256);
    assert!(first.poll().is_none());
    let second = charging(&worlds[1], &shares[1], 256);
    let error = second.wait().map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("all 2 files in flight wait for room"),
        "{error}"
    );
    assert!(first.poll().is_none(), "the older request goes on waiting");
    drop(held);
    assert!(first.poll().unwrap().is_ok());
}
