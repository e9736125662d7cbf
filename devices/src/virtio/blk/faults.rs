//! Faults of a disk: rules that a wrapper around its store consults (L-162 to L-164).

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use super::SECTOR;
use super::store::{BlockError, BlockOp, BlockStore, SharedStore};
use crate::sync::lock;

/// What a rule does to the operations that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reads fail.
    FailReads,
    /// Writes, zeroing, discards and flushes fail; nothing is stored.
    FailWrites,
    /// Everything is put off by so much guest time.
    Delay {
        /// In nanoseconds.
        ns: u64,
    },
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// The sectors it is about. A flush has none and is hit always.
    pub sectors: RangeInclusive<u64>,
    /// Hits after which it clears itself; None: never.
    pub hits: Option<u64>,
}

impl Rule {
    /// A rule about the whole disk, for good.
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            sectors: 0..=u64::MAX,
            hits: None,
        }
    }

    fn touches(&self, op: &BlockOp) -> bool {
        let (BlockOp::Read { offset, len } | BlockOp::Write { offset, len }) = *op else {
            return true;
        };
        let last = offset.saturating_add(len.saturating_sub(1)) / SECTOR;
        *self.sectors.start() <= last && offset / SECTOR <= *self.sectors.end()
    }

    fn fails(&self, op: &BlockOp) -> bool {
        match self.effect {
            Effect::FailReads => matches!(op, BlockOp::Read { .. }),
            Effect::FailWrites => matches!(op, BlockOp::Write { .. } | BlockOp::Flush),
            Effect::Delay { .. } => false,
        }
    }
}

/// The rules in force, shared between the wrapper and who sets them. Clones are the same plan.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    rules: Arc<Mutex<Vec<Rule>>>,
}

impl FaultPlan {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule; rules combine.
    pub fn add(&self, rule: Rule) {
        lock(&self.rules).push(rule);
    }

    /// Removes every rule.
    pub fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// The rules in force, oldest first.
    pub fn active(&self) -> Vec<Rule> {
        lock(&self.rules).clone()
    }

    /// Counts a hit on every rule that `hit` chooses and sums up what it returns.
    fn consult(&self, hit: impl Fn(&Rule) -> Option<u64>) -> Option<u64> {
        let mut total: Option<u64> = None;
        lock(&self.rules).retain_mut(|rule| {
            let Some(value) = hit(rule).filter(|_| rule.hits != Some(0)) else {
                return true;
            };
            total = Some(total.unwrap_or(0).saturating_add(value));
            rule.hits = rule.hits.map(|hits| hits - 1);
            rule.hits != Some(0)
        });
        total
    }

    fn delay(&self, op: &BlockOp) -> u64 {
        let delay = self.consult(|rule| match rule.effect {
            Effect::Delay { ns } if rule.touches(op) => Some(ns),
            _ => None,
        });
        delay.unwrap_or(0)
    }

    fn check(&self, op: &BlockOp) -> Result<(), BlockError> {
        let failed = self.consult(|rule| (rule.fails(op) && rule.touches(op)).then_some(0));
        failed.map_or(Ok(()), |_| Err(BlockError::Injected))
    }
}

/// A store with faults.
pub struct FaultyStore {
    inner: SharedStore,
    plan: FaultPlan,
}

impl FaultyStore {
    /// Wraps `inner`, consulting `plan` for every operation.
    pub fn new(inner: SharedStore, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

impl BlockStore for FaultyStore {
    fn capacity(&self) -> u64 {
        lock(&self.inner).capacity()
    }

    fn is_read_only(&self) -> bool {
        lock(&self.inner).is_read_only()
    }

    fn delay_ns(&mut self, op: &BlockOp) -> u64 {
        let inner = lock(&self.inner).delay_ns(op);
        self.plan.delay(op).saturating_add(inner)
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BlockError> {
        let op = BlockOp::Read {
            offset,
            len: data.len() as u64,
        };
        self.plan.check(&op)?;
        lock(&self.inner).read(offset, data)?;
        // A fault set while the read was under way still catches it (L-163).
        self.plan.check(&op)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.plan.check(&BlockOp::Write {
            offset,
            len: data.len() as u64,
        })?;
        lock(&self.inner).write(offset, data)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.plan.check(&BlockOp::Flush)?;
        lock(&self.inner).flush()
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.plan.check(&BlockOp::Write { offset, len })?;
        lock(&self.inner).zero(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::blk::store::MemoryStore;

    fn rig() -> (FaultyStore, FaultPlan) {
        let plan = FaultPlan::new();
        let inner = Arc::new(Mutex::new(MemoryStore::new(64 * SECTOR)));
        (FaultyStore::new(inner, plan.clone()), plan)
    }

    /// L-163
    #[test]
    fn a_failed_write_is_not_stored_and_covers_flush_and_zeroing() {
        let (mut store, plan) = rig();
        plan.add(Rule::new(Effect::FailWrites));
        assert!(matches!(store.write(0, &[1]), Err(BlockError::Injected)));
        assert!(store.flush().is_err() && store.zero(0, 1).is_err());
        let mut data = [9];
        store.read(0, &mut data).unwrap();
        assert_eq!(data, [0]);
        plan.clear();
        assert!(store.write(0, &[1]).is_ok());
    }

    /// L-162
    #[test]
    fn rules_have_a_range_and_a_count_and_combine() {
        let (mut store, plan) = rig();
        plan.add(Rule {
            sectors: 2..=3,
            hits: Some(2),
            ..Rule::new(Effect::FailReads)
        });
        plan.add(Rule::new(Effect::Delay { ns: 5 }));
        plan.add(Rule {
            hits: Some(1),
            ..Rule::new(Effect::Delay { ns: 7 })
        });
        let read = BlockOp::Read {
            offset: 0,
            len: SECTOR,
        };
        assert_eq!(store.delay_ns(&read), 12);
        assert_eq!(store.delay_ns(&BlockOp::Flush), 5);
        let mut sector = [0; SECTOR as usize];
        assert!(store.read(SECTOR, &mut sector).is_ok());
        assert!(store.read(4 * SECTOR, &mut sector).is_ok());
        assert!(
            store.read(2 * SECTOR - 1, &mut [0; 2]).is_err(),
            "its first byte"
        );
        assert!(store.read(3 * SECTOR, &mut sector).is_err());
        assert!(
            store.read(3 * SECTOR, &mut sector).is_ok(),
            "cleared itself"
        );
        assert_eq!(plan.active().len(), 1);
    }
}
