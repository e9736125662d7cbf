//! Making a link to a guest that is booting, or whose link was lost: vsock first, the second serial port when the
//! kernel has no vsock (E-042 to E-048).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use provium_devices::virtio::vsock::ConnectionState;
use provium_devices::{ByteStream, StreamError};
use provium_protocol::{AGENT_PORT, FrameReader, Hello, HelloOk, PROTOCOL_VERSION, serial};
use provium_vmm::{Machine, MachineState};

use super::Link;
use super::link::Now;
use crate::wait::{Either, GuestTimer, Limit, World, both};

/// A refused connection is tried again after this much guest time: the agent is about to listen.
const RETRY: Duration = Duration::from_millis(2);

/// No answer to the greeting for this long: start over (E-048).
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The same on the serial port, where a call into a port that nobody has opened is lost.
const SERIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A kernel that has not brought vsock up after this much guest time may have none: the serial port is tried too.
const SERIAL_AFTER: Duration = Duration::from_secs(1);

/// Why there is no link, and trying on makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The agent is of another build (E-046).
    #[error(
        "the agent refused: {message} (harness speaks protocol {PROTOCOL_VERSION}, agent {theirs}; \
         harness and agent must come from one build)"
    )]
    Refused {
        /// Version of the agent.
        theirs: u32,
        /// What it said.
        message: String,
    },
    /// The machine stopped.
    #[error("the machine stopped")]
    MachineGone,
    /// A worker's port does not answer, or breaks the connection off.
    #[error("{0}")]
    Broken(String),
}

/// Connects to the agent and greets it. Tries until it succeeds or the caller gives up; `resume` asks the agent to
/// keep the handles of the connection before (E-047).
pub(crate) async fn open(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    resume: bool,
) -> Result<(Arc<Link>, HelloOk), OpenError> {
    let vsock = over_vsock(world, machine, resume);
    let serial = over_serial(world, machine, resume);
    match both(vsock, serial).await {
        Either::First(result) | Either::Second(result) => result,
    }
}

async fn over_vsock(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    resume: bool,
) -> Result<(Arc<Link>, HelloOk), OpenError> {
    loop {
        if let Call::Met(link, hello) = try_vsock(world, machine, AGENT_PORT, resume).await? {
            return Ok((link, hello));
        }
        retry(world, machine).await?;
    }
}

/// What became of a call on a port.
enum Call {
    /// It was answered.
    Met(Arc<Link>, HelloOk),
    /// Nobody listens there.
    Refused,
    /// It broke: a guest that was just restored drops the connections it had, and may drop a new one with them.
    Lost,
}

/// One call on a port.
async fn try_vsock(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    port: u32,
    resume: bool,
) -> Result<Call, OpenError> {
    let stream = match machine.vsock().connect(port) {
        Ok(stream) => stream,
        Err(StreamError::MachineGone) => return Err(OpenError::MachineGone),
        Err(_) => return Ok(Call::Lost),
    };
    stream.subscribe(machine.signal());
    let ended = poll_fn(|_| match stream.connection() {
        ConnectionState::Connecting => Poll::Pending,
        ConnectionState::Connected => Poll::Ready(None),
        ConnectionState::Ended(cause) => Poll::Ready(Some(cause)),
    });
    match ended.await {
        None => {}
        Some(Some(StreamError::MachineGone)) => return Err(OpenError::MachineGone),
        Some(Some(StreamError::Refused)) => return Ok(Call::Refused),
        Some(_) => return Ok(Call::Lost),
    }
    let link = Link::new(Box::new(stream), FrameReader::new(), clock(machine));
    let greeted = greet(world, machine, link, resume, HELLO_TIMEOUT).await?;
    Ok(greeted.map_or(Call::Lost, |(link, hello)| Call::Met(link, hello)))
}

/// Lets some guest time pass. No time passes in a machine that has stopped, and none is waited for.
async fn retry(world: &Arc<World>, machine: &Arc<Machine>) -> Result<(), OpenError> {
    GuestTimer::after(world, machine, RETRY).await;
    match machine.state() {
        MachineState::Stopped(_) => Err(OpenError::MachineGone),
        _ => Ok(()),
    }
}

/// The fallback for kernels without vsock. It speaks up late, repeats itself (the guest may not have opened its end
/// yet), and gives way as soon as vsock works.
async fn over_serial(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    resume: bool,
) -> Result<(Arc<Link>, HelloOk), OpenError> {
    GuestTimer::after(world, machine, SERIAL_AFTER).await;
    let mut number = 0u8;
    loop {
        let stream = machine.agent_serial().open();
        stream.subscribe(machine.signal());
        let link = Link::new(
            Box::new(stream),
            serial::host_reader(number),
            clock(machine),
        );
        link.send_raw(&serial::call(number));
        if let Some(link) = greet(world, machine, link, resume, SERIAL_TIMEOUT).await? {
            return Ok(link);
        }
        number = number.wrapping_add(1);
        retry(world, machine).await?;
    }
}

/// The machine's time, without keeping the machine alive.
fn clock(machine: &Arc<Machine>) -> Now {
    let machine = Arc::downgrade(machine);
    Arc::new(move || machine.upgrade().map_or(0, |machine| machine.now_ns()))
}

/// Sends the greeting and waits for its answer; none when the attempt came to nothing.
async fn greet(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    link: Arc<Link>,
    resume: bool,
    timeout: Duration,
) -> Result<Option<(Arc<Link>, HelloOk)>, OpenError> {
    if let Ok(frame) = Hello::new(env!("CARGO_PKG_VERSION"), resume).to_frame() {
        link.send_raw(&frame);
    }
    let answer = poll_fn(|_| link.hello());
    match both(answer, Limit::new(world, machine, timeout)).await {
        Either::First(Ok(Ok(hello))) if hello.protocol_version == PROTOCOL_VERSION => {
            Ok(Some((link, hello)))
        }
        Either::First(Ok(Ok(hello))) => Err(OpenError::Refused {
            theirs: hello.protocol_version,
            message: "it speaks another version".to_owned(),
        }),
        Either::First(Ok(Err(refusal))) => Err(OpenError::Refused {
            theirs: refusal.protocol_version,
            message: refusal.message,
        }),
        Either::First(Err(_)) | Either::Second(_) => Ok(None),
    }
}

/// Connects to the worker with that process id. It listens from before its port is known until its end (E-085), so one
/// call that is not taken tells that it is not there.
pub(crate) async fn open_worker(
    world: &Arc<World>,
    machine: &Arc<Machine>,
    port: u32,
    pid: i32,
    resume: bool,
) -> Result<Arc<Link>, OpenError> {
    let called = async {
        loop {
            match try_vsock(world, machine, port, resume).await? {
                Call::Lost => retry(world, machine).await?,
                call => return Ok(call),
            }
        }
    };
    let problem = match both(called, Limit::new(world, machine, HELLO_TIMEOUT)).await {
        Either::First(Ok(Call::Met(link, hello))) if hello.worker && hello.pid == pid => {
            return Ok(link);
        }
        Either::First(Ok(Call::Met(_, hello))) => {
            format!("process {} answers on its port {port}", hello.pid)
        }
        Either::First(Err(error)) => return Err(error),
        Either::First(Ok(Call::Refused | Call::Lost)) | Either::Second(_) => {
            format!("the worker does not answer on port {port}")
        }
    };
    Err(OpenError::Broken(problem))
}
