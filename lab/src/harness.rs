//! What all sessions of one run share: configuration, backend, event sink, prepared guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use provium_vmm::Backend;

use crate::config::Config;
use crate::events::{EventSink, NoEvents};
use crate::guest::{Guests, Progress, Silent};
use crate::images::Images;
use crate::ksm::Ksm;
use crate::pool::Pool;

/// The run's common ground. One per process is enough; cheap to share.
pub struct Harness {
    config: Config,
    backend: Backend,
    events: Arc<dyn EventSink>,
    guests: Guests,
    pool: Pool,
    /// Merges equal pages of guests.
    ksm: Option<Ksm>,
    images: Images,
    /// No VM is to go on from the state of an earlier boot.
    cold: AtomicBool,
    next_cid: AtomicU32,
    next_id: AtomicU64,
}

/// First context id given to a VM (L-117).
const FIRST_CID: u32 = 10;

impl Harness {
    /// A harness on `backend` with this configuration, silent and without events.
    #[must_use]
    pub fn new(config: Config, backend: Backend, guests: Guests) -> Self {
        Self {
            config,
            backend,
            events: Arc::new(NoEvents),
            guests,
            pool: Pool::unlimited(),
            ksm: None,
            images: Images::default(),
            cold: AtomicBool::new(false),
            next_cid: AtomicU32::new(FIRST_CID),
            next_id: AtomicU64::new(1),
        }
    }

    /// For a Rust test: the configuration found from the current directory, on the software CPU, with the guests in
    /// the user's cache.
    pub fn for_tests() -> Result<Arc<Self>, crate::config::ConfigError> {
        let places = crate::config::Places::from_env();
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let config = Config::discover(&here, &places)?;
        Ok(Arc::new(Self::new(
            config,
            Backend::Soft,
            Guests::new(places.guests(), Arc::new(Silent)),
        )))
    }

    /// The same with events going to `sink`.
    #[must_use]
    pub fn with_events(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.events = sink;
        self
    }

    /// The same with guest preparation told to `progress`.
    #[must_use]
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.guests = self.guests.with_progress(progress);
        self
    }

    /// The same with files and VMs sharing `pool` instead of having all they ask for.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self
    }

    /// The same with equal pages of guests kept once where the host can do that.
    #[must_use]
    pub fn with_ksm(mut self, ksm: Ksm) -> Self {
        self.ksm = Some(ksm);
        self
    }

    /// Whether memory of a guest that starts now may be merged with that of others; the first time, makes the host do
    /// it.
    pub(crate) fn merges_memory(&self) -> bool {
        let Some(ksm) = &self.ksm else { return false };
        if let Some(changed) = ksm.begin() {
            self.events.note(&changed);
        }
        true
    }

    /// The same with every boot going through the kernel, if `cold`, instead of going on from the state that an
    /// earlier boot has left.
    #[must_use]
    pub fn with_cold(mut self, cold: bool) -> Self {
        self.cold = AtomicBool::new(cold);
        self
    }

    pub(crate) fn is_cold(&self) -> bool {
        self.cold.load(Ordering::Relaxed)
    }

    /// From now on as with [`Harness::with_cold`].
    pub(crate) fn stay_cold(&self) {
        self.cold.store(true, Ordering::Relaxed);
    }

    /// What files and VMs share.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which backend runs its VMs.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The prepared guests.
    #[must_use]
    pub fn guests(&self) -> &Guests {
        &self.guests
    }

    /// Tells the run's event sink something of a floor above (E-024 to E-027).
    pub fn emit(&self, event: impl Into<provium_protocol::EventKind>) {
        self.events.emit(event.into());
    }

    /// The cache of fixtures.
    #[must_use]
    pub fn fixtures(&self) -> crate::fixture::Cache {
        crate::fixture::Cache::new(&self.config.cache_dir)
    }

    /// Snapshot files that are open.
    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    pub(crate) fn events(&self) -> &Arc<dyn EventSink> {
        &self.events
    }

    /// A vsock context id, unique in the run (L-117).
    pub(crate) fn new_cid(&self) -> u32 {
        self.next_cid.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for `tostring`, unique in the run (L-005).
    #[must_use]
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
