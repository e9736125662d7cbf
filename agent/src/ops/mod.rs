//! The operations, and the thread that runs those which act with the agent's identity (E-055).

pub(crate) mod batch;
mod block;
pub(crate) mod class;
mod clock;
mod files;
pub(crate) mod immediate;
pub(crate) mod kernel;
mod memory;
mod net;
mod streams;
mod vfs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use provium_protocol::ops::{Exec, ExecSpec, Spawned};
use provium_protocol::wire::Wire;
use provium_protocol::{Error, Op};

use crate::process::{Launch, Surroundings, launch};
use crate::root::RootFollower;
use crate::server::request::{At, Job, ReplyTo, Ticket, Work};
use crate::server::{Role, Server};
use crate::sys::fd::Fd;
use crate::sys::spawn::Stack;
use crate::sys::{Errno, Sys, file, mount, system, time};
use crate::{calls, worker};

/// Where programs are found when nobody says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lets an operation that waits be cancelled: a signal alone only means "again".
pub(crate) struct Interruption(Arc<AtomicBool>);

impl Interruption {
    /// Repeats a call that a signal interrupted, unless the operation should give up.
    pub(crate) fn retry<T>(&self, mut call: impl FnMut() -> Sys<T>) -> Sys<T> {
        loop {
            match call() {
                Err(libc::EINTR) if !self.0.load(Ordering::Relaxed) => {}
                other => return other,
            }
        }
    }
}

/// What the op thread has of its own.
pub(crate) struct OpThread {
    server: Arc<Server>,
    surroundings: Surroundings,
    root: RootFollower,
    interruption: Interruption,
}

impl OpThread {
    /// For the calling thread.
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        let mut env = system::environment();
        if !env
            .iter()
            .any(|entry| entry.to_bytes().starts_with(b"PATH="))
        {
            env.extend(std::ffi::CString::new(PATH));
        }
        let (role, give_up) = {
            let state = server.lock();
            (state.role, state.give_up_flag())
        };
        // Without a proc file system there is no root to follow and no protection to undo, so any
        // descriptor does; without /dev/null a closed pipe reads as empty as well.
        let proc_dir = mount::proc_dir().or_else(|_| empty_input());
        let Ok(proc_dir) = proc_dir else {
            no_descriptors()
        };
        let mut root = match (crate::follows_root(), role) {
            (false, _) => RootFollower::nobody(),
            (true, Role::Main) => RootFollower::from_here(&proc_dir),
            // A worker starts where the op thread that made it is, wherever a test took that.
            (true, _) => RootFollower::from_next_move(&proc_dir),
        };
        root.refresh(&proc_dir);
        let null = file::open_own(b"/dev/null", libc::O_RDWR).or_else(|_| empty_input());
        let Ok(null) = null else { no_descriptors() };
        let proc_dir = Arc::new(proc_dir);
        let surroundings = Surroundings {
            env,
            stack: Stack::new(),
            null,
            proc_dir,
        };
        Self {
            server: Arc::clone(server),
            surroundings,
            root,
            interruption: Interruption(give_up),
        }
    }

    /// Does a job.
    pub(crate) fn run(&mut self, job: Job) {
        let ticket = job.ticket;
        match job.work {
            Work::Op(Op::Batch(op)) => self.batch(batch::BatchRun::new(ticket, op.ops)),
            Work::Op(op) => self.run_op(op, ReplyTo::Request(ticket)),
            Work::Batch(run) => self.batch(run),
            Work::FindBlock(serial, until) => {
                self.root.refresh(&self.surroundings.proc_dir);
                self.find_block(serial, Some(until), ticket);
            }
        }
    }

    /// Does one operation and gives its result to `to`, now or when it is known.
    fn run_op(&mut self, op: Op, to: ReplyTo) {
        let ticket = to.ticket();
        self.prepare_for(&op);
        let server = Arc::clone(&self.server);
        let server = &*server;
        match op {
            Op::Exec(op) => self.exec(op, to),
            Op::Spawn(op) => {
                let result = self.spawn(op.spec);
                self.reply(to, result);
            }
            Op::ReadFile(op) => {
                let result = files::read_file(server, &op, &self.interruption);
                self.reply(to, result);
            }
            Op::WriteFile(op) => {
                let data = server.lock().current.staged.take(op.data);
                let result = data.and_then(|data| {
                    files::write_file(&op.path, &data, op.perm, &self.interruption)
                });
                self.reply(to, result);
            }
            Op::Stat(op) => self.reply(to, files::stat(&op)),
            Op::ListDir(op) => self.reply(to, files::list_dir(&op.path)),
            Op::Mkdir(op) => self.reply(to, files::mkdir(&op)),
            Op::Unlink(op) => self.reply(to, files::unlink(&op.path)),
            Op::Rename(op) => self.reply(to, files::rename(&op.from, &op.to)),
            Op::Open(op) => {
                let result = files::open(server, &op, &self.interruption);
                self.reply(to, result);
            }
            Op::Read(op) => {
                let result = files::read(server, &op, &self.interruption);
                self.reply(to, result);
            }
            Op::Write(op) => {
                let result = files::write(server, &op, &self.interruption);
                self.reply(to, result);
            }
            Op::Seek(op) => self.reply(to, files::seek(server, &op)),
            Op::Close(op) => self.reply(to, files::close(server, op.h)),
            Op::TailOpen(op) => {
                let proc_dir = &self.surroundings.proc_dir;
                let result = streams::tail_open(server, &op, &self.interruption, proc_dir);
                self.reply_stream(ticket, result);
            }
            Op::FdStreamOpen(op) => {
                let result = streams::fd_stream_open(server, &op, &self.surroundings.proc_dir);
                self.reply_stream(ticket, result);
            }
            Op::Syscall(op) => {
                let result = kernel::syscall(&self.server, op);
                let mut state = server.lock();
                let result = result.map(|result| kernel::finish(&mut state, result));
                state.reply(to, result);
            }
            Op::SyscallAsync(op) => {
                let call = kernel::prepare(server, op.call);
                let started = call.and_then(|call| calls::start(&self.server, call, ticket));
                if let Err(error) = started {
                    self.reply(to, Err::<(), _>(error));
                }
            }
            Op::Ioctl(op) => {
                let result = kernel::ioctl(server, op);
                let mut state = server.lock();
                let result =
                    result.map(|(result, data)| kernel::finish_ioctl(&mut state, result, data));
                state.reply(to, result);
            }
            Op::MemRead(op) => self.reply(to, memory::read(op.addr, op.len)),
            Op::MemWrite(op) => self.reply(to, memory::write(op.addr, &op.data)),
            Op::ClockSet(op) => self.reply(to, clock::set(op.ns)),
            Op::ClockAdvance(op) => self.reply(to, clock::advance(op.delta_ns)),
            Op::MountVfs(_) => self.reply(to, vfs::mount_vfs()),
            Op::Dmesg(_) => self.reply(to, vfs::dmesg()),
            Op::NetConfigure(op) => self.reply(to, net::configure(&op)),
            Op::BlockFind(op) => self.find_block(op.serial, None, ticket),
            Op::SpawnWorker(op) => self.reply(to, worker::spawn(&self.server, op.thread)),
            Op::WorkerExit(_) => {
                self.reply(to, Ok(()));
                server.lock().quit();
            }
            // Operations come one after the other, and what they wrote is with the kernel.
            Op::Quiesce(_) | Op::Unquiesce(_) => self.reply(to, Ok(())),
            Op::Shutdown(op) => self.shutdown(op.sync, to),
            // The immediate ones come here as parts of a batch only, which refuses them.
            other => {
                let error = provium_protocol::ops::unknown(other.name());
                self.reply(to, Err::<(), _>(error));
            }
        }
    }

    /// Gets ready for an operation: the right root for what uses paths, and somebody to watch the
    /// connection while it may wait.
    fn prepare_for(&mut self, op: &Op) {
        if uses_paths(op) {
            self.root.refresh(&self.surroundings.proc_dir);
        }
        let mut state = self.server.lock();
        if class::may_wait(op, &state.handles) {
            state.arm();
        }
    }

    fn reply<T: Wire>(&self, to: ReplyTo, result: Result<T, Error>) {
        self.server.lock().reply(to, result);
    }

    fn reply_stream(&self, ticket: Ticket, result: Result<u64, Error>) {
        let mut state = self.server.lock();
        let stream = result.as_ref().ok().copied();
        state.answer(ticket, result);
        if let Some(stream) = stream {
            state.pump(stream);
        }
    }

    fn launch(&mut self, spec: ExecSpec, spawned: bool) -> Result<Launch, Error> {
        let server = &self.server;
        let staged = |blob| server.lock().current.staged.take(blob);
        launch(spec, staged, spawned, &mut self.surroundings)
    }

    fn exec(&mut self, op: Exec, to: ReplyTo) {
        match self.launch(op.spec, false) {
            Ok(launch) => self.server.lock().watch_exec(launch, to, op.timeout_ms),
            Err(error) => self.reply(to, Err::<(), _>(error)),
        }
    }

    fn spawn(&mut self, spec: ExecSpec) -> Result<Spawned, Error> {
        let launch = self.launch(spec, true)?;
        Ok(self.server.lock().watch_spawned(launch))
    }

    /// Looks for a block device; one that is not there yet is looked for again.
    fn find_block(&mut self, serial: String, until: Option<u64>, ticket: Ticket) {
        let until = until.unwrap_or_else(|| time::monotonic() + block::WAIT_NS);
        let found = block::find(&serial);
        let mut state = self.server.lock();
        if found.is_some() || time::monotonic() >= until {
            state.answer(ticket, found.ok_or_else(|| block::not_found(&serial)));
        } else if !state.is_dead(ticket) {
            let job = Job::new(ticket, Work::FindBlock(serial, until));
            state.park();
            let retry = crate::server::timers::Due::Retry(Box::new(job));
            let key = state.timers.after(block::AGAIN_NS, retry);
            state.moved(ticket, At::Timer(key));
        }
    }

    /// Powers off after the answer has left.
    fn shutdown(&mut self, sync: bool, to: ReplyTo) {
        if sync {
            system::sync();
        }
        self.reply(to, Ok(()));
        // The link sends from a thread of the kernel; let it.
        time::sleep(vfs::LEAVE_NS);
        let errno = system::power_off();
        crate::log(&format!(
            "power off: {}",
            provium_protocol::errno::describe(errno)
        ));
    }
}

fn no_descriptors() -> ! {
    crate::fatal("no descriptors left for the op thread")
}

/// A reading end whose writer is gone.
fn empty_input() -> Result<Fd, Errno> {
    crate::sys::fd::pipe().map(|(read, _)| read)
}

/// Whether an operation looks up paths, directly or through a buffer.
fn uses_paths(op: &Op) -> bool {
    match op {
        Op::Syscall(call) => !call.bufs.is_empty(),
        Op::SyscallAsync(op) => !op.call.bufs.is_empty(),
        Op::Read(_) | Op::Write(_) | Op::Seek(_) | Op::Close(_) | Op::Ioctl(_) => false,
        Op::ClockSet(_) | Op::ClockAdvance(_) | Op::MemRead(_) | Op::MemWrite(_) => false,
        _ => true,
    }
}
