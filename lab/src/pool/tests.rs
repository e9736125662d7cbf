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
    booting(world, share, amount(mib, 1))
}

fn booting(world: &Arc<World>, share: &Share, vm: Amount) -> Pending<Charge> {
    let (share, inner) = (share.clone(), world.clone());
    Pending::new(world, "vm:boot", "vm a", async move {
        let charged = share.charge(&inner, vm, |_| {}).await;
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

/// A classic run's files and a world for each.
fn classic<const N: usize>(pool: &Pool) -> [(Share, Arc<World>); N] {
    std::array::from_fn(|n| {
        let share = pool.admit(&format!("file {n}"), Amount::default());
        (share.unwrap(), World::new())
    })
}

/// A request that is served at once.
fn served(pending: &mut Pending<Charge>) -> Charge {
    pending.poll().unwrap().unwrap()
}

#[test]
fn r048_a_budget_counts_what_vms_take_and_nothing_else() {
    let pool = Pool::budget(Some(1024 * MIB), Some(3));
    let [(a, world_a), (b, world_b), (c, world_c)] = classic(&pool);
    assert_eq!(pool.used(), Amount::default(), "files take nothing");
    let first = served(&mut booting(&world_a, &a, amount(512, 1)));
    let second = served(&mut booting(&world_b, &b, amount(512, 1)));
    assert_eq!(pool.available(), amount(0, 1));
    let mut third = booting(&world_c, &c, amount(64, 1));
    assert!(third.poll().is_none(), "no memory is left");
    drop(first);
    let third = served(&mut third);
    let mut fourth = booting(&world_a, &a, amount(64, 2));
    assert!(fourth.poll().is_none(), "one CPU is left");
    drop((second, third));
    drop(served(&mut fourth));
    assert_eq!(pool.used(), Amount::default());
}

#[test]
fn r048_only_the_given_dimension_is_limited() {
    let [cpus, memory] = [
        Pool::budget(None, Some(2)),
        Pool::budget(Some(512 * MIB), None),
    ];
    let [(file, world)] = classic(&cpus);
    drop(served(&mut booting(&world, &file, amount(1 << 20, 2))));
    let [(file, world)] = classic(&memory);
    drop(served(&mut booting(&world, &file, amount(512, 64))));
}

#[test]
fn r048_a_vm_larger_than_the_budget_raises_naming_both() {
    for (pool, vm, wanted, limit) in [
        (
            Pool::budget(Some(512 * MIB), None),
            amount(513, 1),
            "513 MiB and 1 CPUs for this VM",
            "the budget of 512 MiB;",
        ),
        (
            Pool::budget(None, Some(2)),
            amount(64, 3),
            "64 MiB and 3 CPUs for this VM",
            "the budget of 2 CPUs;",
        ),
    ] {
        let [(file, world)] = classic(&pool);
        let refused = booting(&world, &file, vm).poll().unwrap().map(drop);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(wanted) && text.contains(limit), "{text}");
        assert_eq!(pool.used(), Amount::default());
    }
    // Beside what the file has up itself, which nobody but the file can give back.
    let pool = Pool::budget(Some(512 * MIB), None);
    let [(file, world)] = classic(&pool);
    let _up = served(&mut booting(&world, &file, amount(300, 1)));
    let refused = booting(&world, &file, amount(300, 1)).poll().unwrap();
    let text = refused.map(drop).unwrap_err().to_string();
    assert!(
        text.contains("beside the 300 MiB and 1 CPUs of this file's other VMs"),
        "{text}"
    );
}

#[test]
fn r049_vms_start_while_the_host_can_spare_their_memory() {
    let spare = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let set = |mib: u64| spare.store(mib * MIB, std::sync::atomic::Ordering::Relaxed);
    let told = spare.clone();
    let pool = Pool::of_host(move || told.load(std::sync::atomic::Ordering::Relaxed));
    let [(a, world_a), (b, world_b), (c, world_c)] = classic(&pool);
    let mut first = served(&mut booting(&world_a, &a, amount(512, 1)));
    let mut second = booting(&world_b, &b, amount(512, 1));
    assert!(
        second.poll().is_none(),
        "one VM may start whatever the host has, a second one not"
    );
    // 512 of these are promised to the first, which is still starting.
    set(1000);
    pool.serve();
    assert!(second.poll().is_none());
    first.settle();
    pool.serve();
    let second = served(&mut second);
    assert_eq!(pool.available().memory_bytes, (1000 - 512) * MIB);
    let mut third = booting(&world_c, &c, amount(512, 1));
    assert!(third.poll().is_none());
    // It gives its memory back, and the host has not said so yet.
    drop(second);
    drop(served(&mut third));
    drop(first);
    assert_eq!(pool.used(), Amount::default());
}

#[test]
fn r049_memory_that_others_free_is_noticed() {
    let spare = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let told = spare.clone();
    let pool = Pool::of_host(move || told.load(std::sync::atomic::Ordering::Relaxed));
    let [(a, world_a), (b, world_b)] = classic(&pool);
    let mut first = served(&mut booting(&world_a, &a, amount(512, 1)));
    first.settle();
    let waiting = booting(&world_b, &b, amount(512, 1));
    let freeing = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        spare.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    });
    waiting.wait().unwrap();
    freeing.join().unwrap();
    assert!(
        world_b.uncounted_time() >= std::time::Duration::from_millis(50),
        "R-050: waiting does not count"
    );
}

#[test]
fn r050_waiters_are_served_in_order() {
    let pool = Pool::budget(Some(1000 * MIB), None);
    let [(a, world_a), (b, world_b), (c, world_c)] = classic(&pool);
    let first = served(&mut booting(&world_a, &a, amount(600, 1)));
    let mut large = booting(&world_b, &b, amount(800, 1));
    let mut small = booting(&world_c, &c, amount(100, 1));
    assert!(large.poll().is_none());
    assert!(small.poll().is_none(), "it would fit, but is not its turn");
    // Whoever has a VM up already is let pass, since its end is what the others wait for.
    let more = served(&mut booting(&world_a, &a, amount(100, 1)));
    drop((first, more));
    let large = served(&mut large);
    drop(served(&mut small));
    drop(large);
}
