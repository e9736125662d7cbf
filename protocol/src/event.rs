//! The event stream of a run: one frame per event (E-009 to E-030).

use std::collections::BTreeMap;

use crate::frame;
use crate::value::Value;
use crate::wire::{
    Budget, DecodeError, Decoder, Encoder, MapView, Wire, check, wire_enum, wire_struct,
};

/// Metadata of a test: always present, sorted by key, maybe empty (E-029).
pub type Meta = BTreeMap<String, Value>;

wire_struct! {
    /// An amount of the resource pool (E-028).
    #[derive(Copy, Eq, Default)]
    pub struct Amount {
        /// Bytes of memory.
        pub memory_bytes: u64,
        /// Virtual CPUs.
        pub cpus: u32,
    }
}

wire_enum! {
    /// How a file ended (E-015).
    pub enum FileStatus {
        /// Every test passed or was skipped.
        Passed = "passed",
        /// A test failed or the file raised.
        Failed = "failed",
        /// The deadline of the file passed.
        TimedOut = "timed_out",
        /// Its runner died.
        Crashed = "crashed",
    }
}

wire_enum! {
    /// Why a file waits (E-013).
    pub enum BlockReason {
        /// The pool has not enough left.
        PoolFull = "pool_full",
        /// The host is under memory pressure.
        PsiPressure = "psi_pressure",
    }
}

/// Declares the kinds of events with their payloads, named on the wire by the given text.
macro_rules! events {
    ($($(#[$meta:meta])* $Kind:ident = $text:literal {
        $($(#[$field_meta:meta])* $field:ident: $Type:ty,)*
    })*) => {
        $(wire_struct! {
            $(#[$meta])*
            pub struct $Kind {
                $($(#[$field_meta])* pub $field: $Type,)*
            }
        })*

        /// What happened: the kind of an event with its payload.
        #[derive(Clone, Debug, PartialEq)]
        pub enum EventKind {
            $($(#[$meta])* $Kind($Kind),)*
        }

        impl EventKind {
            /// The names of all kinds.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The kind as it is written.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Kind(_) => $text,)*
                }
            }

            fn encode_payload(&self, out: &mut Encoder<'_>) {
                match self {
                    $(Self::$Kind(payload) => payload.encode(out),)*
                }
            }

            fn decode(
                name: &str,
                payload: &mut Decoder<'_>,
            ) -> Result<Option<Self>, DecodeError> {
                Ok(Some(match name {
                    $($text => Self::$Kind($Kind::decode(payload)?),)*
                    _ => return Ok(None),
                }))
            }
        }

        $(impl From<$Kind> for EventKind {
            fn from(payload: $Kind) -> Self {
                Self::$Kind(payload)
            }
        })*
    };
}

events! {
    /// A file was selected (E-012).
    FileDiscovered = "file_discovered" {
        /// Display path of the file.
        path: String,
        /// Literal `vm_fixture` and `lab_fixture` arguments, in order of first use.
        fixture_refs: Vec<String>,
        /// The literal claim of the file.
        declared_claim: Option<Amount>,
    }
    /// The file at the head of the queue starts to wait (E-013).
    FileBlocked = "file_blocked" {
        /// Display path of the file.
        path: String,
        /// The whole reservation asked for.
        waiting_for: Amount,
        /// What it waits for.
        reason: BlockReason,
    }
    /// A runner takes a file (E-014).
    FileDispatched = "file_dispatched" {
        /// Display path of the file.
        path: String,
        /// Overhead plus literal claim.
        reservation: Amount,
    }
    /// A file ended (E-015).
    FileCompleted = "file_completed" {
        /// Display path of the file.
        path: String,
        /// How it ended.
        status: FileStatus,
        /// How long it took.
        duration_ns: u64,
    }
    /// A test begins (E-016).
    TestStarted = "test_started" {
        /// Display path of the file.
        path: String,
        /// Name of the test.
        name: String,
        /// Its metadata.
        meta: Meta,
    }
    /// A test passed (E-017).
    TestPassed = "test_passed" {
        /// Display path of the file.
        path: String,
        /// Name of the test.
        name: String,
        /// How long its body took.
        duration_ns: u64,
        /// Its metadata.
        meta: Meta,
        /// What it logged.
        log: Option<Vec<String>>,
    }
    /// A test failed (E-018).
    TestFailed = "test_failed" {
        /// Display path of the file.
        path: String,
        /// Name of the test.
        name: String,
        /// How long its body took.
        duration_ns: u64,
        /// Why it failed.
        reason: String,
        /// The end of the console of every booted VM.
        console_excerpt: String,
        /// Its metadata.
        meta: Meta,
        /// What it logged.
        log: Option<Vec<String>>,
    }
    /// A test was skipped (E-019).
    TestSkipped = "test_skipped" {
        /// Display path of the file.
        path: String,
        /// Name of the test.
        name: String,
        /// Why it was skipped.
        reason: String,
        /// Its metadata.
        meta: Meta,
        /// What it logged.
        log: Option<Vec<String>>,
    }
    /// A VM runs (E-020).
    VmSpawned = "vm_spawned" {
        /// Display path of the file.
        file: String,
        /// Name of the VM.
        vm_name: String,
        /// Its profile.
        profile: String,
        /// Its memory.
        memory_bytes: u64,
        /// Its vsock context id.
        cid: u32,
    }
    /// A VM ended (E-021).
    VmShutdown = "vm_shutdown" {
        /// Display path of the file.
        file: String,
        /// Name of the VM.
        vm_name: String,
        /// How long it ran.
        duration_ns: u64,
    }
    /// The resource pool, once a second (E-022).
    PoolState = "pool_state" {
        /// Reserved, claimed or charged.
        used: Amount,
        /// Left.
        available: Amount,
    }
    /// A file took its explicit claim (E-023).
    ClaimAcquired = "claim_acquired" {
        /// Display path of the file.
        path: String,
        /// The claim.
        amount: Amount,
    }
    /// A file gave its explicit claim back (E-023).
    ClaimReleased = "claim_released" {
        /// Display path of the file.
        path: String,
        /// The claim.
        amount: Amount,
    }
    /// A fixture is being built (E-024).
    FixtureBuildStarted = "fixture_build_started" {
        /// Name of the fixture.
        path: String,
    }
    /// A build ended (E-025).
    FixtureBuildDone = "fixture_build_done" {
        /// Name of the fixture.
        path: String,
        /// How long it took.
        duration_ns: u64,
        /// Size of the snapshot, 0 on failure.
        snapshot_bytes: u64,
        /// Why it failed.
        error: Option<String>,
    }
    /// A build waits for another builder (E-026).
    FixtureBuildWaiting = "fixture_build_waiting" {
        /// Name of the fixture.
        path: String,
        /// The file that builds, or `pid:N` in another process.
        held_by_file: String,
    }
    /// A fixture came from the cache (E-027).
    FixtureCacheHit = "fixture_cache_hit" {
        /// Name of the fixture.
        path: String,
    }
}

/// One event with its envelope (E-009 to E-011).
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Nanoseconds since the epoch at emission, never decreasing within a stream.
    pub ts: i64,
    /// What happened.
    pub kind: EventKind,
}

/// What a reader finds in one frame of an event stream.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadEvent {
    /// An event of this version.
    Known(Event),
    /// A kind that this version does not know, to be ignored.
    Unknown(String),
}

impl Event {
    /// The event as a frame. An event that does not fit one (a test that logged more than 16 MiB)
    /// gives back its size.
    pub fn to_frame(&self) -> Result<Vec<u8>, usize> {
        frame::encode_with(|out| {
            let out = &mut Encoder::new(out);
            out.map(3);
            out.str("ts");
            out.int(self.ts);
            out.str("kind");
            out.str(self.kind.name());
            out.str("payload");
            self.kind.encode_payload(out);
        })
    }

    /// Reads the body of a frame.
    pub fn from_body(body: &[u8]) -> Result<ReadEvent, DecodeError> {
        check(body).map_err(|error| DecodeError::new(error.to_string()))?;
        let budget = Budget::default();
        let map = MapView::new(&mut Decoder::new(body, &budget))?;
        let required = |key: &'static str| {
            map.find(key)?
                .ok_or_else(|| DecodeError::new("missing").at(key))
        };
        let ts = required("ts")?.int().map_err(|error| error.at("ts"))?;
        let name = required("kind")?.str().map_err(|error| error.at("kind"))?;
        let kind = EventKind::decode(name, &mut required("payload")?)
            .map_err(|error| error.at("payload"))?;
        Ok(match kind {
            Some(kind) => ReadEvent::Known(Event { ts, kind }),
            None => ReadEvent::Unknown(name.to_owned()),
        })
    }
}
