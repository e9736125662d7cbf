//! Entropy source (virtio 1.2, 5.4): fills the driver's buffers from a seeded stream.
//!
//! The same seed gives the same bytes, whatever the sizes of the requests (L-068): the device
//! draws from one byte stream and remembers only its position.

use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};

use super::state::{DeviceState, RestoreError};
use super::{Chain, DeviceError, DeviceIo, RING_FEATURES, VirtioDevice, id};

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [64];
/// One request is served at most this many bytes; the driver asks again for more. It bounds the
/// time one notification can cost.
const MAX_REQUEST: u64 = 64 * 1024;
/// A ChaCha block; the position in words of the generator is a multiple of a block's 16.
const BLOCK: usize = 64;

/// A byte stream that is a function of its seed.
struct SeededStream {
    seed: u64,
    generator: ChaCha20Rng,
    block: [u8; BLOCK],
    /// Bytes handed out so far; those of the current block are the remainder by its size.
    position: u64,
}

impl SeededStream {
    fn new(seed: u64, position: u64) -> Self {
        let mut generator = ChaCha20Rng::seed_from_u64(seed);
        let mut block = [0; BLOCK];
        let block_size = BLOCK as u64;
        generator.set_word_pos(u128::from(position / block_size) * 16);
        if !position.is_multiple_of(block_size) {
            generator.fill_bytes(&mut block);
        }
        Self {
            seed,
            generator,
            block,
            position,
        }
    }

    fn fill(&mut self, data: &mut [u8]) {
        for byte in data {
            let index = usize::from(self.position.to_le_bytes()[0]) % BLOCK;
            if index == 0 {
                self.generator.fill_bytes(&mut self.block);
            }
            *byte = self.block[index];
            self.position = self.position.wrapping_add(1);
        }
    }
}

/// The device.
pub struct Rng {
    stream: SeededStream,
}

/// Its state in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// The seed of the stream.
    pub seed: u64,
    /// Bytes handed out so far.
    pub position: u64,
}

impl Rng {
    /// An entropy source whose stream is a function of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            stream: SeededStream::new(seed, 0),
        }
    }

    fn serve(&mut self, chain: &Chain, io: &DeviceIo<'_>) -> u32 {
        let wanted = chain.writable_len().min(MAX_REQUEST);
        let mut data = [0; 1024];
        let mut written = 0;
        while written < wanted {
            let step = usize::try_from(wanted - written).map_or(data.len(), |n| n.min(data.len()));
            self.stream.fill(&mut data[..step]);
            // The chain was checked against memory, which does not shrink.
            if chain.write_at(io.memory, written, &data[..step]).is_err() {
                break;
            }
            written += step as u64;
        }
        u32::try_from(written).unwrap_or(0)
    }
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> u32 {
        id::RNG
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        io.queue(QUEUE).ok_or(DeviceError::MissingQueue(QUEUE))?;
        self.notify(QUEUE, io)
    }

    fn notify(&mut self, queue: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        loop {
            io.disable_notifications(queue)?;
            while let Some(chain) = io.pop(queue)? {
                let written = self.serve(&chain, io);
                io.complete(queue, chain, written)?;
            }
            if !io.enable_notifications(queue)? {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.notify(QUEUE, io)
    }

    /// The stream goes on where it was: a rebooted guest must not see the same bytes again.
    fn reset(&mut self) {}

    fn save(&self) -> DeviceState {
        DeviceState::Rng(RngState {
            seed: self.stream.seed,
            position: self.stream.position,
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Rng(RngState { seed, position }) = *state else {
            return Err(RestoreError::WrongDevice("an entropy"));
        };
        self.stream = SeededStream::new(seed, position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceState, QUEUE, RestoreError, Rng, VirtioDevice};
    use crate::mock::{Buffer, Driver};
    use proptest::{prop_assert_eq, proptest};

    /// The bytes that requests of these sizes yield, one after the other.
    fn draw(driver: &mut Driver, sizes: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &size in sizes {
            let (_, addresses) = driver.request(QUEUE, &[Buffer::Writable(size)]);
            driver.notify(QUEUE);
            let used = driver.take_used(QUEUE);
            bytes.extend(driver.bytes(addresses[0], used[0].1 as usize));
        }
        bytes
    }

    proptest! {
        /// L-068
        #[test]
        fn the_stream_is_a_function_of_the_seed_alone(
            seed: u64,
            sizes in proptest::collection::vec(1..300u32, 1..20),
        ) {
            let total = sizes.iter().sum();
            let mut driver = Driver::started(Rng::new(seed), 0);
            let at_once = draw(&mut Driver::started(Rng::new(seed), 0), &[total]);
            prop_assert_eq!(draw(&mut driver, &sizes), at_once);
        }
    }

    #[test]
    fn seeds_differ() {
        let draw = |seed| draw(&mut Driver::started(Rng::new(seed), 0), &[64]);
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1), vec![0; 64]);
    }

    /// L-068
    #[test]
    fn a_reset_does_not_repeat_the_stream_and_a_restore_goes_on_with_it() {
        let mut driver = Driver::started(Rng::new(7), 0);
        let first = draw(&mut driver, &[100]);
        let saved = driver.transport.save();
        let second = draw(&mut driver, &[100]);
        driver.transport.restore(&saved).unwrap();
        // The mock driver's own position is not part of the state: start it anew.
        driver.start(0);
        assert_eq!(draw(&mut driver, &[100]), second);
        driver.start(0);
        assert_ne!(draw(&mut driver, &[100]), first);
    }

    #[test]
    fn a_huge_request_is_served_in_part() {
        let mut driver = Driver::started(Rng::new(7), 0);
        driver.request(QUEUE, &[Buffer::Writable(0x10_0000)]);
        driver.notify(QUEUE);
        assert_eq!(driver.take_used(QUEUE), [(0, 65536)]);
    }

    #[test]
    fn a_request_without_room_gets_nothing() {
        let mut driver = Driver::started(Rng::new(7), 0);
        driver.request(QUEUE, &[Buffer::Readable(vec![1; 8])]);
        driver.notify(QUEUE);
        assert_eq!(driver.take_used(QUEUE), [(0, 0)]);
    }

    #[test]
    fn a_foreign_state_is_refused() {
        let state = DeviceState::Vsock(crate::virtio::vsock::VsockState { guest_cid: 3 });
        assert!(matches!(
            Rng::new(0).restore(&state),
            Err(RestoreError::WrongDevice(_))
        ));
    }
}
