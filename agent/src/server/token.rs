//! Names of the descriptors the io thread waits for.

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Output of a process. Before its exit, so that what is there is read first.
    Stdout,
    Stderr,
    /// Input of a process has room.
    Stdin,
    /// A process ended.
    Exit,
    /// A stream's descriptor has data.
    Stream,
    /// A file that a stream follows changed.
    Inotify,
    /// The connection has data or room.
    Session,
    /// A connection waits.
    Listener,
    /// A time has come.
    Timer,
    /// Another thread wants attention.
    Wake,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Stdout,
        Self::Stderr,
        Self::Stdin,
        Self::Exit,
        Self::Stream,
        Self::Inotify,
        Self::Session,
        Self::Listener,
        Self::Timer,
        Self::Wake,
    ];
}

const SHIFT: u32 = 56;

/// Packs a kind and a number below 2^56.
pub(crate) fn token(kind: Kind, id: u64) -> u64 {
    (kind as u64) << SHIFT | id
}

/// Unpacks a token.
pub(crate) fn parts(token: u64) -> Option<(Kind, u64)> {
    let kind = *Kind::ALL.get((token >> SHIFT) as usize)?;
    Some((kind, token & ((1 << SHIFT) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_unpack_to_what_they_were() {
        for kind in Kind::ALL {
            let id = (4_194_304 << 28) + 7;
            assert_eq!(parts(token(kind, id)), Some((kind, id)));
        }
        assert_eq!(parts(u64::MAX), None);
    }
}
